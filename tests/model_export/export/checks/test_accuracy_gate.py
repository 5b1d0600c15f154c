"""The accuracy gate counts labels clip by clip, and a graph that loses too much does not pass by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.export.calibration import LabelledClip
from model_export.export.checks.accuracy_gate import (
    AccuracyError,
    LabelComparison,
    LogitsFunction,
    clips_needed,
    compare_labels,
    drop_bound,
)
from model_export.export.precision import AccuracyLimits

LIMITS = AccuracyLimits(max_drop=0.5, min_agreement=98.0)


def clips(labels: Sequence[int | None]) -> list[LabelledClip]:
    """One-pixel clips whose value is their position in the list."""
    return [
        LabelledClip({"frames": np.array(divmod(position, 256), np.uint8).reshape(1, 1, 1, 2)}, label)
        for position, label in enumerate(labels)
    ]


def answering(labels: Sequence[int]) -> LogitsFunction:
    """A graph that gives each of `clips` the label at its position."""

    def logits(inputs: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        assert inputs["frames"].shape == (1, 1, 1, 1, 2)
        high, low = inputs["frames"].ravel().tolist()
        row = np.zeros((1, 3), np.float32)
        row[0, labels[256 * high + low]] = 1.0
        return row

    return logits


def judged(truth: Sequence[int | None], expected: Sequence[int], given: Sequence[int]) -> LabelComparison:
    functions = {"int8": answering(given)}
    return compare_labels(answering(expected), functions, clips(truth), LIMITS)["int8"]


def changed(count: int, clips: int) -> LabelComparison:
    """Clips of class 0: the float graph labels all correctly, the rounded one all but `count`."""
    return judged([0] * clips, [0] * clips, [1] * count + [0] * (clips - count))


def test_clip_with_several_labels_is_right_if_the_best_one_is_among_them() -> None:
    both = [LabelledClip(clip.inputs, 0, (2,)) for clip in clips([0, 0])]
    accuracy = compare_labels(answering([2, 2]), {"int8": answering([0, 1])}, both, LIMITS)["int8"]
    assert (accuracy.right_float, accuracy.losses, accuracy.gains) == (2, 1, 0)


def test_top1_is_of_the_labelled_clips_and_agreement_of_all() -> None:
    accuracy = judged([0, 1, 2, 0, None], [0, 1, 2, 2, 1], [0, 1, 1, 0, 2])
    assert (accuracy.clips, accuracy.labelled) == (5, 4)
    assert (accuracy.top1_float, accuracy.top1, accuracy.agreement) == (75.0, 75.0, 40.0)
    assert (accuracy.losses, accuracy.gains) == (1, 1)
    assert accuracy.described().startswith(
        "top-1 75.0 % in float, 75.0 % rounded, 4 clips, a drop of at most "
    )
    assert accuracy.described().endswith(" points; same label for 40.0 % of 5")


def test_limit_needs_a_least_number_of_clips_even_where_none_changes() -> None:
    assert clips_needed(0.005) == 539
    changed(0, 539).check("model.onnx")
    with pytest.raises(
        AccuracyError, match=r"538 labelled clips cannot show a drop of at most 0.5 points .* 539"
    ):
        changed(0, 538).check("model.onnx")


def test_loss_that_may_be_past_the_limit_is_refused_with_its_bound() -> None:
    accuracy = changed(5, 1000)  # half a point was lost here, so more may be lost elsewhere
    with pytest.raises(
        AccuracyError, match=r"^model.onnx has top-1 99.5 %, the float graph 100.0 %, .* loses up to 1.0"
    ):
        accuracy.check("model.onnx")


def test_loss_that_is_surely_below_the_limit_passes() -> None:
    changed(2, 2000).check("model.onnx")


def test_gain_is_no_loss() -> None:
    judged([0] * 600, [1] * 10 + [0] * 590, [0] * 600).check("model.onnx")


@pytest.mark.parametrize(("losses", "gains", "clips", "bound"), [(0, 0, 539, 0.5), (10, 10, 2000, 0.39)])
def test_bound_in_points(losses: int, gains: int, clips: int, bound: float) -> None:
    assert 100 * drop_bound(losses, gains, clips) == pytest.approx(bound, abs=0.02)


@pytest.mark.parametrize("clips", [600, 1000, 3000])
@pytest.mark.parametrize(("loss", "gain"), [(0.005, 0.0), (0.015, 0.01)])
def test_graph_that_loses_the_limit_passes_one_time_in_twenty(clips: int, loss: float, gain: float) -> None:
    """A true drop of 0.5 points passes in 5 % of all cases, for any number of clips."""
    counts = np.random.default_rng(0).multinomial(clips, [loss, gain, 1 - loss - gain], 4000)
    outcomes, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    passed = sum(
        int(count)
        for (losses, gains), count in zip(outcomes.tolist(), times, strict=True)
        if drop_bound(losses, gains, clips) <= 0.005
    )
    assert passed / 4000 < 0.065


@pytest.mark.parametrize("labelled", [True, False])
def test_agreement_counts_with_and_without_classes(labelled: bool) -> None:
    """Losses and gains that cancel out still change labels."""
    truth: list[int | None] = [0, 1] * 500 if labelled else [None] * 1000
    expected = [0] * 1000
    within, past = ([1] * count + [0] * (1000 - count) for count in (20, 21))
    assert judged(truth, expected, within).agreement == 98.0
    with pytest.raises(AccuracyError, match=r"97\.9 % of 1000 clips the label of the float graph"):
        judged(truth, expected, past).check("model.onnx")


def test_agreement_alone_needs_a_least_number_of_clips_too() -> None:
    judged([None] * 133, [0] * 133, [1] * 2 + [0] * 131).check("model.onnx")
    with pytest.raises(AccuracyError, match="132 clips cannot show an agreement of at least 98 %"):
        judged([None] * 132, [0] * 132, [0] * 132).check("model.onnx")


def test_no_limit_needs_no_clips() -> None:
    accuracy = compare_labels(
        answering([0]), {"int8": answering([1])}, clips([0]), AccuracyLimits(max_drop=100, min_agreement=0)
    )
    accuracy["int8"].check("model.onnx")

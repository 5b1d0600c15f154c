"""What rounding costs is counted clip by clip, and a graph that loses too much is no package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.accuracy_gate import Accuracy, AccuracyError, Answer, compare_answers
from model_export.calibration import LabelledClip


def clips(labels: Sequence[int | None]) -> list[LabelledClip]:
    """One-pixel clips whose value is their place in the list."""
    return [
        LabelledClip({"frames": np.full((1, 1, 1, 3), place, np.uint8)}, label)
        for place, label in enumerate(labels)
    ]


def answering(labels: Sequence[int]) -> Answer:
    """A graph that gives each of `clips` the label in its place."""

    def logits(inputs: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        assert inputs["frames"].shape == (1, 1, 1, 1, 3)
        row = np.zeros((1, 3), np.float32)
        row[0, labels[int(inputs["frames"].max())]] = 1.0
        return row

    return logits


def judged(truth: Sequence[int | None], wanted: Sequence[int], found: Sequence[int]) -> Accuracy:
    answers = {"int8": answering(found)}
    return compare_answers(answering(wanted), answers, clips(truth), max_drop=0.5)["int8"]


def test_top1_is_of_the_clips_that_say_their_class_and_agreement_of_all() -> None:
    accuracy = judged([0, 1, 2, 0, None], [0, 1, 2, 2, 1], [0, 1, 1, 0, 2])
    assert (accuracy.clips, accuracy.labelled) == (5, 4)
    assert (accuracy.top1_float, accuracy.top1, accuracy.agreement) == (75.0, 75.0, 40.0)
    accuracy.check("model.onnx")  # other labels, but no fewer right ones
    assert accuracy.described() == (
        "top-1 75.0 % in float, 75.0 % rounded, 4 clips; same label for 40.0 % of 5"
    )


def test_a_loss_past_the_limit_is_refused_with_what_a_clip_counts() -> None:
    accuracy = judged([0] * 200, [0] * 200, [1, 1] + [0] * 198)
    with pytest.raises(AccuracyError, match=r"^model.onnx has top-1 99.0 % where .* 100.0 %.*is 0.5 points"):
        accuracy.check("model.onnx")


def test_a_loss_at_the_limit_passes() -> None:
    judged([0] * 200, [0] * 200, [1] + [0] * 199).check("model.onnx")


def test_a_gain_is_no_loss() -> None:
    judged([0] * 10, [1] * 10, [0] * 10).check("model.onnx")


@pytest.mark.parametrize(("changed", "refused"), [(2, False), (3, True)])
def test_without_classes_two_clips_in_a_hundred_may_change(changed: int, refused: bool) -> None:
    accuracy = judged([None] * 100, [0] * 100, [1] * changed + [0] * (100 - changed))
    assert accuracy.top1 is None
    if refused:
        with pytest.raises(AccuracyError, match=r"97\.0 % of 100 clips the float graph's label"):
            accuracy.check("model.onnx")
    else:
        accuracy.check("model.onnx")

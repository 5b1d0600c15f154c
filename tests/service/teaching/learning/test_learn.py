"""Learning from examples, and the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.teaching.card import model_card
from service.teaching.examples import TeachingError
from service.teaching.learning.learn import Taught, learn
from service.teaching.report import CurvePoint
from tests.service.teaching.examples import examples


def answers(taught: Taught, features: NDArray[np.float32]) -> list[str]:
    logits = taught.head.evidence(features[:, 0]).mean(axis=1)
    return [taught.labels[index] for index in logits.argmax(axis=1)]


def test_a_head_labels_clips_that_it_was_not_learned_from() -> None:
    taught = learn(examples({"up": 8, "down": 8, "background": 8}))
    new = examples({"up": 5, "down": 5, "background": 5}, seed=2)
    assert answers(taught, new.features) == list(new.labels)
    assert taught.labels == ("background", "down", "up")
    assert taught.head.weights.shape == (4, 6, 3)
    assert taught.report.accuracy.top1 == 1.0
    assert taught.report.accuracy.low < 1.0


def test_the_order_of_moments_tells_actions_apart_that_show_the_same() -> None:
    shown = examples({"up": 8, "down": 8}, noise=1.5)
    ordered = learn(shown).report.accuracy.top1
    random = np.random.default_rng(3)
    shuffled = np.stack([random.permuted(clip, axis=1) for clip in shown.features])
    assert ordered > learn(replace(shown, features=shuffled)).report.accuracy.top1


def test_the_same_examples_give_the_same_head() -> None:
    shown = examples({"up": 4, "down": 4, "still": 4})
    np.testing.assert_array_equal(learn(shown).head.weights, learn(shown).head.weights)


def test_a_mislabelled_clip_is_suspect_and_named() -> None:
    shown = examples({"up": 10, "down": 10})
    labels = list(shown.labels)
    labels[3] = "down"
    (suspect,) = learn(replace(shown, labels=labels)).report.suspects
    assert (suspect.name, suspect.label, suspect.looks_like) == ("clip 3", "down", "up")


def test_accuracy_is_that_of_groups_that_were_left_out() -> None:
    # Each group has its own background, which distinguishes its clips but says nothing about other groups.
    shown = examples({"up": 12, "down": 12}, noise=3.0)
    groups = [f"group {number % 12 // 4}" for number in range(24)]
    background = {group: np.random.default_rng(index).normal(size=6) for index, group in enumerate(groups)}
    sides = np.where(np.array(shown.labels) == "up", 1.0, -1.0)
    for clip, group in enumerate(groups):
        shown.features[clip] += (8 * sides[clip] * background[group]).astype(np.float32)
    by_clip = learn(shown).report
    by_group = learn(replace(shown, groups=groups)).report
    assert (by_clip.groups, by_clip.folds, by_group.groups, by_group.folds) == (24, 5, 3, 3)
    assert by_group.accuracy.top1 < by_clip.accuracy.top1


def test_confusion_and_curve_add_up() -> None:
    shown = examples({"up": 9, "down": 6, "still": 3}, noise=4.0)
    report = learn(shown).report
    assert [sum(row) for row in report.confusion] == [6, 3, 9]
    assert list(report.labels.items()) == [("down", 6), ("still", 3), ("up", 9)]
    assert sum(report.confusion[index][index] for index in range(3)) == report.accuracy.right
    sizes = [point.clips_per_label for point in report.curve]
    assert sizes == sorted(sizes)
    assert report.curve[-1] == CurvePoint(sizes[-1], report.accuracy.top1)
    assert 0.0 <= report.threshold.value <= 1.0


def test_the_threshold_marks_clips_of_actions_that_were_not_taught() -> None:
    taught = learn(examples({"up": 8, "down": 8, "still": 8, "wave": 8}, noise=0.3))
    assert taught.report.threshold.right_marked <= 0.1
    assert taught.report.threshold.unknown_marked is not None
    unknown = examples({"jump": 10}, noise=0.3).features
    known = examples({"up": 10}, noise=0.3, seed=5).features

    def best(features: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = taught.head.evidence(features[:, 0]).mean(axis=1)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(scores.max(axis=1) / scores.sum(axis=1))

    assert (best(known) >= taught.threshold).mean() > (best(unknown) >= taught.threshold).mean()


def test_rare_labels_weigh_as_much_as_frequent_ones() -> None:
    taught = learn(examples({"up": 40, "down": 3}, noise=3.0))
    new = examples({"down": 30}, noise=3.0, seed=2)
    assert answers(taught, new.features).count("down") > 15


def test_mirrored_views_teach_the_other_side() -> None:
    shown = examples({"swipe left": 6, "swipe right": 6, "wave": 6}, mirrored=True)
    taught = learn(shown)
    assert taught.labels == ("swipe left", "swipe right", "wave")
    assert taught.mirror == (1, 0, 2)
    assert learn(replace(shown, mirrored=False)).mirror is None
    with pytest.raises(TeachingError, match="need a label 'swipe right'"):
        learn(examples({"swipe left": 3, "wave": 3}, mirrored=True))


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ({"up": 5}, "at least 2 labels are needed; only 'up' has clips"),
        ({"up": 5, "down": 1}, "each label needs at least 2 clips; add clips of 'down'"),
        ({"up": 3, "Up ": 3}, "'Up ' and 'up' differ only by case or spaces"),
        ({"up": 3, " ": 3}, "a label must not be empty"),
    ],
)
def test_sets_that_cannot_be_learned_are_refused_by_name(counts: dict[str, int], complaint: str) -> None:
    with pytest.raises(TeachingError, match=complaint):
        learn(examples(counts))


def test_small_and_one_sided_sets_are_warned_of() -> None:
    (few,) = learn(examples({"up": 2, "down": 5})).report.warnings
    assert few == "Fewer than 5 clips of up: the accuracy is uncertain."
    (alone,) = learn(examples({"up": 5, "down": 5}, groups=["a"] * 10)).report.warnings
    assert "of one group" in alone
    (single,) = learn(examples({"up": 6, "down": 6}, groups=["a", "b"] * 3 + ["a"] * 6)).report.warnings
    assert single.startswith("All clips of down are of one group")


def test_two_clips_of_two_labels_are_enough() -> None:
    report = learn(examples({"up": 2, "down": 2})).report
    assert report.two_more is None
    assert "too few clips" in model_card(report, "moves", 1, "base/1")


def test_the_card_has_the_figures_of_the_report() -> None:
    report = learn(examples({"up": 9, "a | b": 9}, noise=3.0)).report
    card = model_card(report, "moves", 3, "base/1")
    assert card.startswith("# moves 3\n")
    assert f"{100 * report.accuracy.top1:.1f} % ({report.accuracy.right} of 18 clips" in card
    assert "| a \\| b | 9 |" in card
    assert f"below {report.threshold.value:.2f} are unsure" in card


def test_progress_is_reported_and_can_cancel() -> None:
    shares: list[float] = []
    learn(examples({"up": 3, "down": 3}), lambda share, _text: shares.append(share))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)

    def cancel(share: float, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(examples({"up": 3, "down": 3}), cancel)

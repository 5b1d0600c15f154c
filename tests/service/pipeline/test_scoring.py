from __future__ import annotations

import numpy as np
import pytest

from service.engines.session import Outputs
from service.packages.manifest import Scores
from service.pipeline.scoring import (
    evidence_scores,
    margins,
    moment_times,
    rank,
    sigmoid,
    softmax,
    unmirror,
)


def test_probabilities_add_up_to_one() -> None:
    scores = softmax(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32))
    assert scores.sum(axis=-1) == pytest.approx([1, 1])
    assert scores[0] == pytest.approx(np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())
    assert scores[1] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_logits_far_from_zero_do_not_overflow(shift: float) -> None:
    assert softmax(np.array([shift, shift + 1])) == pytest.approx(softmax(np.array([0.0, 1.0])))


def test_best_labels_come_first() -> None:
    ranked = rank(np.array([[0.0, 3.0, 1.0, 2.0]], np.float32), top_k=3)
    assert ranked.indices.tolist() == [1, 3, 2]
    assert ranked.scores == pytest.approx(softmax(np.array([0.0, 3.0, 1.0, 2.0]))[[1, 3, 2]])


def test_top_k_above_the_number_of_labels_returns_all() -> None:
    assert rank(np.array([[0.0, 1.0]], np.float32), top_k=5).indices.tolist() == [1, 0]


def test_ties_are_in_label_order() -> None:
    logits = np.array([[0.0, 1.0] * 100], np.float32)
    assert rank(logits, top_k=200).indices.tolist() == [*range(1, 200, 2), *range(0, 200, 2)]


def test_views_are_averaged_before_the_softmax() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 1.0]], np.float32)
    assert rank(logits, 2).scores == pytest.approx(softmax(np.array([4.5, 0.5])))


def test_evidence_of_crops_is_averaged_and_of_clips_kept_separate() -> None:
    first, second = np.full((2, 3), [[0.0], [1.0]]), np.full((2, 3), [[2.0], [5.0]])  # (T' = 2, C = 3)
    first[:, 1] += 1.0
    second[:, 2] += 2.0
    views = np.stack([first, np.add(first, [0, 2, 0]), second, second])  # two clips of two crops
    scores = evidence_scores(views, clips=2, indices=np.array([1, 2]))
    assert scores.shape == (4, 2)
    assert scores[0] == pytest.approx(softmax(np.array([0.0, 2.0, 0.0]))[[1, 2]])
    assert scores[3] == pytest.approx(softmax(np.array([5.0, 5.0, 7.0]))[[1, 2]])


def test_margins_add_up_to_the_scores_of_the_video() -> None:
    evidence = np.random.default_rng(3).normal(0, 4, (6, 5, 7)).astype(np.float32)  # 2 clips of 3 crops
    ranked = rank(evidence.mean(axis=1), top_k=4)
    found = margins(evidence, 2, ranked.indices, runner_up=int(ranked.indices[1]))
    assert found.shape == (10, 4)
    assert found.mean(axis=0) == pytest.approx(np.log(ranked.scores / ranked.scores[1]))


@pytest.mark.parametrize(
    ("moments", "expected"),
    [(4, [0.5, 2.5, 4.5, 6.5]), (8, [0, 1, 2, 3, 4, 5, 6, 7]), (1, [3.5]), (3, [1.0, 4.0, 6.5])],
)
def test_moment_is_the_middle_of_its_frames(moments: int, expected: list[float]) -> None:
    assert moment_times(np.arange(8.0)[None], moments).tolist() == expected


def test_moments_of_several_clips_follow_each_other() -> None:
    assert moment_times(np.array([[0.0, 2.0], [1.0, 3.0]]), 1).tolist() == [1.0, 2.0]


def test_mirrored_views_get_the_labels_of_the_original_clip() -> None:
    """Labels 0 and 1 are mirror images of each other."""
    logits = np.tile(np.array([[5.0, 1.0, 0.0]], np.float32), (20, 1))
    logits[5:10] = logits[15:20] = [1.0, 5.0, 0.0]
    evidence = np.stack([logits, logits + 1], axis=1)
    aligned = unmirror(Outputs(logits, evidence), 10, (1, 0, 2))
    assert np.array_equal(aligned.logits, np.tile([[5.0, 1.0, 0.0]], (20, 1)))
    assert np.array_equal(aligned.evidence, np.stack([aligned.logits, aligned.logits + 1], axis=1))


@pytest.mark.parametrize("crops", [1, 3, 5])
def test_views_that_are_not_mirrored_stay_as_they_are(crops: int) -> None:
    outputs = Outputs(np.zeros((2 * crops, 3), np.float32), np.zeros((2 * crops, 4, 3), np.float32))
    assert unmirror(outputs, crops, None) is outputs


def test_sigmoids_are_probabilities_of_each_label_and_do_not_overflow() -> None:
    logits = np.array([0.0, 2.0, -2.0, 1e4, -1e4], np.float32)
    found = sigmoid(logits)
    assert found == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 1.0, 0.0])


def test_sigmoid_scores_are_those_of_the_mean_logits() -> None:
    logits = np.array([[3.0, 0.0, -1.0], [1.0, 4.0, -3.0]], np.float32)
    ranked = rank(logits, 3, Scores.SIGMOID)
    assert ranked.indices.tolist() == [0, 1, 2]  # means 2, 2 and -2
    assert ranked.scores == pytest.approx(sigmoid(np.array([2.0, 2.0, -2.0])))
    assert ranked.scores.sum() > 1


def test_sigmoids_of_large_logits_are_ranked_by_their_logits() -> None:
    ranked = rank(np.array([[50.0, 60.0]], np.float32), 2, Scores.SIGMOID)
    assert ranked.indices.tolist() == [1, 0]


def test_evidence_of_sigmoid_scores_adds_up_to_the_scores_of_the_video() -> None:
    evidence = np.random.default_rng(3).normal(0, 2, (6, 5, 7)).astype(np.float32)  # 2 clips of 3 crops
    ranked = rank(evidence.mean(axis=1), 4, Scores.SIGMOID)
    found = margins(evidence, 2, ranked.indices, runner_up=None)
    assert found.mean(axis=0) == pytest.approx(np.log(ranked.scores / (1 - ranked.scores)), abs=1e-5)
    scores = evidence_scores(evidence, 2, ranked.indices, Scores.SIGMOID)
    assert scores == pytest.approx(sigmoid(found), abs=1e-6)

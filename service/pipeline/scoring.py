"""From logits to answers: mirrored views, averaging over views, probabilities, evidence over time.

Pure numpy. Views of one video (several temporal samplings, several crops) are averaged before the softmax:
the published evaluation takes the mean of the logits over clips and crops and then the softmax
(`eval_a_batch` in the authors' test.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.clip.geometry import CROP_COUNTS, crop_boxes
from service.engines.session import Outputs
from service.packages.manifest import Scores

Floats = NDArray[np.floating]

# Which of the views of a clip are mirrored left to right, by the number of crops.
MIRRORED = {crops: np.array([crop.mirrored for crop in crop_boxes(1, 1, 1, crops)]) for crops in CROP_COUNTS}


@dataclass(frozen=True)
class Ranked:
    """The best classes, best first: `indices` int64 `(k,)` and `scores` float64 `(k,)`, probabilities."""

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]


def unmirror(outputs: Outputs, crops: int, mirror: Sequence[int] | None) -> Outputs:
    """Reorder the logits and evidence of mirrored views to the labels of the original clip.

    A network sees the mirror image of a clip of label `i` as label `mirror[i]`, for example with "from left
    to right". Without this, averaging over mirrored views would mix up such labels.

    Args:
        outputs: Outputs for the views of a video, `crops` for each clip.
        crops: Number of views of each clip.
        mirror: `Manifest.mirror`; may only be None if no view is mirrored.
    """
    if not MIRRORED[crops].any():
        return outputs
    mirrored = np.tile(MIRRORED[crops], len(outputs.logits) // crops)
    labels = np.array(mirror)
    logits, evidence = outputs.logits.copy(), outputs.evidence.copy()
    logits[mirrored] = logits[mirrored][:, labels]
    evidence[mirrored] = evidence[mirrored][:, :, labels]
    return Outputs(logits, evidence, outputs.features)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return probabilities over the last axis; logits are shifted by their maximum to avoid overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float64)


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """Return the separate probability of each class."""
    values = logits.astype(np.float64)
    small = np.exp(-np.abs(values))  # no logit overflows
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def probabilities(logits: Floats, scores: Scores) -> NDArray[np.float64]:
    """Return the scores over the last axis."""
    return sigmoid(logits) if scores is Scores.SIGMOID else softmax(logits)


def rank(logits: Floats, top_k: int, scores: Scores = Scores.SOFTMAX) -> Ranked:
    """Return the `top_k` best classes (all if there are fewer) of `logits (V, C)`, averaged over V views.

    Equal scores come in the order of their indices, so that an answer never depends on the sorting algorithm.
    Sigmoid scores are ordered by their logits, because the sigmoids of large logits are equal.
    """
    mean = logits.mean(axis=0)
    values = probabilities(mean, scores)
    indices = np.argsort(-(mean if scores is Scores.SIGMOID else values), kind="stable")[:top_k]
    return Ranked(indices.astype(np.int64), values[indices])


def evidence_scores(
    evidence: Floats, clips: int, indices: NDArray[np.int64], scores: Scores = Scores.SOFTMAX
) -> NDArray[np.float64]:
    """Return the probabilities `(clips * T', k)` of the classes `indices` at every moment.

    Args:
        evidence: `(clips * crops, T', C)` logits, one row per view, ordered by clip and then by crop. Crops
            of one clip show the same moments and are averaged; each clip shows different moments.
        clips: number of temporal samplings.
        indices: `(k,)` classes to show; with softmax, probabilities are over all C classes.
        scores: how logits become scores.
    """
    views, moments, classes = evidence.shape
    per_clip = evidence.reshape(clips, views // clips, moments, classes).mean(axis=1)
    return probabilities(per_clip.reshape(clips * moments, classes), scores)[:, indices]


def margins(
    evidence: Floats, clips: int, indices: NDArray[np.int64], runner_up: int | None
) -> NDArray[np.float64]:
    """Return the lead of the classes `indices` over `runner_up` at every moment, `(clips * T', k)`.

    A margin is a difference of logits. The logits of a video are the mean of its evidence, so the mean of a
    margin over the moments is `ln(score / score of runner_up)`: plotted margins add up to the scores. The
    values of `evidence_scores` do not, because a softmax of a mean is not the mean of softmaxes. Without a
    runner-up the margins are the logits, whose mean is `ln(score / (1 - score))` for sigmoid scores.

    Args:
        evidence: as for `evidence_scores`.
        clips: number of temporal samplings.
        indices: `(k,)` classes.
        runner_up: the class to compare with; None for sigmoid scores, which do not compare classes.
    """
    views, moments, classes = evidence.shape
    per_clip = evidence.reshape(clips, views // clips, moments, classes).mean(axis=1, dtype=np.float64)
    logits = per_clip.reshape(clips * moments, classes)
    shown = logits[:, indices]
    return np.asarray(shown if runner_up is None else shown - logits[:, [runner_up]], dtype=np.float64)


def moment_times(timestamps_s: NDArray[np.float64], moments: int) -> NDArray[np.float64]:
    """Return the middle of each of T' moments in seconds, `(clips * T',)`, from the timestamps `(clips, T)`.

    A moment is a run of adjacent frames (a pair if the network has two streams); its time is their mean.
    """
    runs = [np.array_split(clip, moments) for clip in timestamps_s]
    return np.array([run.mean() for clip in runs for run in clip], dtype=np.float64)

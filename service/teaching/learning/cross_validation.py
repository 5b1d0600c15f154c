"""Cross-validation by group: the answers of a head to clips that it was not learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.teaching.learning.calibration import best_temperature, softmax
from service.teaching.learning.pooled import Indices, PooledExamples
from service.teaching.report import CurvePoint

Floats = NDArray[np.float64]

MAX_FOLDS = 5
# Strongest first: each fit starts from the previous one.
PENALTIES = (10.0, 1.0, 0.1, 0.01)
CURVE_SHARES = (1 / 3, 2 / 3)
CURVE_SEED = 0
# Number of labels that are left out in turn, to measure the scores of clips of unknown actions.
MAX_UNKNOWN_LABELS = 8


@dataclass(frozen=True)
class LeftOut:
    """Answers to every example by a classifier of the folds that do not contain it.

    Attributes:
        logits: float64 `(n, C)`, with the chosen penalty.
        penalty: The penalty with the least calibrated log loss.
        temperature: The calibration of the logits.
        known: bool `(n,)`, whether the label of the example was among those of its classifier.
    """

    logits: Floats
    penalty: float
    temperature: float
    known: NDArray[np.bool_]

    @property
    def scores(self) -> Floats:
        """Calibrated probabilities `(n, C)`."""
        return softmax(self.logits / self.temperature)


class CrossValidation:
    """For each fold, fits on all other folds."""

    def __init__(self, examples: PooledExamples) -> None:
        self._examples = examples
        self.fold_of = grouped_folds(examples.labels, examples.groups)
        self.folds = int(self.fold_of.max()) + 1

    def run(self, on_progress: Callable[[float], None]) -> LeftOut:
        """Choose the penalty and the temperature by the log loss of the examples that were left out."""
        examples = self._examples
        logits = np.zeros((len(PENALTIES), len(examples.labels), examples.class_count))
        # If all clips of a label are in one group, the classifier that answers them does not know the label.
        known = np.zeros(len(examples.labels), np.bool_)
        for fold in range(self.folds):
            kept, tested = self._split(fold)
            known[tested] = np.isin(examples.labels[tested], examples.labels[kept])
            classifier = None
            for number, penalty in enumerate(PENALTIES):
                on_progress((fold + number / len(PENALTIES)) / self.folds)
                classifier = examples.fit(kept, penalty, classifier)
                logits[number, tested] = examples.logits(classifier, tested)
        judged = np.flatnonzero(known) if known.any() else np.arange(len(known))
        weights = examples.weights(judged)
        calibrated = [best_temperature(one[judged], examples.labels[judged], weights) for one in logits]
        best = int(np.argmin([loss for _, loss in calibrated]))
        return LeftOut(logits[best], PENALTIES[best], calibrated[best][0], known)

    def learning_curve(self, left_out: LeftOut) -> tuple[tuple[CurvePoint, ...], float | None]:
        """Return top-1 with fewer clips, and the expected change with two more clips of each label.

        The error is extrapolated as a power of the number of clips, as learning curves do (Hestness et al.,
        arXiv 1712.00409). The change is None if there are too few clips to compare (fewer than three of a
        label).
        """
        examples, random = self._examples, np.random.default_rng(CURVE_SEED)
        points = []
        for share in CURVE_SHARES:
            right = clips = 0
            for fold in range(self.folds):
                kept, tested = self._split(fold)
                chosen = np.concatenate(
                    [
                        random.permutation(members)[: max(1, round(share * len(members)))]
                        for label in range(examples.class_count)
                        if len(members := kept[examples.labels[kept] == label])
                    ]
                )
                answers = examples.logits(examples.fit(chosen, left_out.penalty), tested).argmax(axis=1)
                right += int((answers == examples.labels[tested]).sum())
                clips += len(chosen)
            points.append(
                CurvePoint(clips / (self.folds * examples.class_count), right / len(examples.labels))
            )
        answers = left_out.logits.argmax(axis=1)
        per_label = len(examples.labels) / examples.class_count
        learned_from = per_label * (self.folds - 1) / self.folds
        points.append(CurvePoint(learned_from, float((answers == examples.labels).mean())))
        if points[0].clips_per_label >= points[-1].clips_per_label - 1 or points[0].clips_per_label < 1.0:
            return tuple(points), None
        return tuple(points), _two_more(points, per_label)

    def scores_of_unknown_labels(self, left_out: LeftOut) -> Floats:
        """Return the best scores of clips whose label was left out, for evenly spread labels."""
        examples = self._examples
        if examples.class_count < 3:
            return np.zeros(0)
        count = min(MAX_UNKNOWN_LABELS, examples.class_count)
        scores = []
        for label in np.linspace(0, examples.class_count, count, endpoint=False).astype(np.int64):
            unknown = np.flatnonzero(examples.labels == label)
            kept = np.flatnonzero((examples.classes != label).all(axis=1))  # nor its mirror image
            classifier = examples.fit(kept, left_out.penalty)
            logits = np.delete(examples.logits(classifier, unknown), label, axis=1)
            scores.append(softmax(logits / left_out.temperature).max(axis=1))
        return np.concatenate(scores)

    def _split(self, fold: int) -> tuple[Indices, Indices]:
        """Return the examples to learn from and the examples to test on."""
        return np.flatnonzero(self.fold_of != fold), np.flatnonzero(self.fold_of == fold)


def grouped_folds(classes: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold number of each example, `(n,)`: up to `MAX_FOLDS` folds, and no group is in two.

    The largest groups are placed first, each into the fold with the fewest clips of the group's labels, so
    that labels are spread evenly. The same examples always get the same folds.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    labels = int(classes.max()) + 1
    counts = np.zeros((len(names), labels), np.int64)
    np.add.at(counts, (members, classes), 1)
    folds = min(MAX_FOLDS, len(names))
    held = np.zeros((folds, labels), np.int64)
    fold_of_group = np.zeros(len(names), np.int64)
    for group in np.argsort(-counts.sum(axis=1), kind="stable"):
        # Among equally suitable folds, take the smallest.
        overlap = held @ counts[group]
        fold = min(range(folds), key=lambda index: (overlap[index], held[index].sum()))
        held[fold] += counts[group]
        fold_of_group[group] = fold
    return fold_of_group[members]


def _two_more(points: list[CurvePoint], per_label: float) -> float:
    """Return the gain of top-1 from two clips more than `per_label`, by a power law fitted to `points`."""
    sizes = np.log([point.clips_per_label for point in points])
    errors = np.array([1 - point.top1 for point in points])
    if errors[-1] == 0:
        return 0.0
    slope = float(np.polyfit(sizes, np.log(np.maximum(errors, 1e-3)), 1)[0])
    slope = min(0.0, max(-1.0, slope))
    now = errors[-1] * np.exp(slope * (np.log(per_label) - sizes[-1]))
    return float(now - now * ((per_label + 2) / per_label) ** slope)

"""Learning a head from examples, and measuring it on examples that were left out or are held out.

pooled features ──> cross-validation by group ──> penalty and temperature ──> fit on all examples ──> head
└──> accuracy, confusion, suspects, threshold, learning curve
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.teaching.examples import Examples, TeachingError, check_set
from service.teaching.head import Head, segment_count
from service.teaching.learning.calibration import accuracy_of, softmax, unsure_threshold
from service.teaching.learning.cross_validation import CrossValidation, LeftOut
from service.teaching.learning.pooled import PooledExamples
from service.teaching.mirroring import mirrored_labels
from service.teaching.report import Report, Suspect, Validation

OnProgress = Callable[[float, str], None]
"""Receives the share that is done and what comes next; an exception that it raises ends the learning."""

FEW_CLIPS = 5
SUSPECT_SCORE = 0.7
MAX_SUSPECTS = 10


@dataclass(frozen=True)
class Taught:
    """A learned head with its labels and the report.

    `mirror` is `Manifest.mirror`: None unless mirrored views were learned from.
    """

    head: Head
    labels: tuple[str, ...]
    report: Report
    mirror: tuple[int, ...] | None = None

    @property
    def threshold(self) -> float:
        """Answers with a lower best score are unsure."""
        return self.report.threshold.value


def learn(examples: Examples, on_progress: OnProgress = lambda _share, _text: None) -> Taught:
    """Learn a head. This takes seconds of processor time; the same examples give the same head.

    Raises:
        TeachingError: see `check_set`, and `mirrored_labels` for mirrored views.
    """
    check_set(examples.labels)
    labels = tuple(sorted(set(examples.labels)))
    mirror = mirrored_labels(labels) if examples.mirrored else None
    segments = segment_count(examples.features.shape[2])
    on_progress(0.0, "reading features")
    pooled = PooledExamples.of(examples, labels, segments, mirror)
    validation = CrossValidation(pooled)
    left_out = validation.run(lambda share: on_progress(0.1 + 0.5 * share, "cross-validating"))
    on_progress(0.6, "learning curve")
    curve, two_more = validation.learning_curve(left_out)
    on_progress(0.75, "clips of unknown actions")
    unknown = validation.scores_of_unknown_labels(left_out)
    on_progress(0.9, "learning from all clips")
    classifier = pooled.of_features(pooled.fit(np.arange(len(pooled.labels)), left_out.penalty))
    on_progress(1.0, "done")
    weights = classifier.weights / left_out.temperature
    head = Head(
        weights.reshape(segments, -1, len(labels)).astype(np.float32),
        (classifier.bias / left_out.temperature).astype(np.float32),
    )
    scores = left_out.scores
    answers, best = scores.argmax(axis=1), scores.max(axis=1)
    right = answers == pooled.labels
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (pooled.labels, answers), 1)
    counts = Counter(examples.labels)
    report = Report(
        labels={label: counts[label] for label in labels},
        groups=len(set(examples.groups or pooled.groups)),
        views=pooled.rows.shape[1],
        folds=validation.folds,
        accuracy=accuracy_of(int(right.sum()), len(right)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        curve=curve,
        two_more=two_more,
        suspects=_suspects(examples.names, labels, pooled.labels, left_out),
        threshold=unsure_threshold(best[right], best[~right], unknown),
        regularisation=left_out.penalty,
        temperature=left_out.temperature,
        warnings=tuple(_warnings(examples, labels)),
    )
    return Taught(head, labels, report, mirror)


def validated(taught: Taught, examples: Examples) -> Taught:
    """Add the answers to `examples`, each for the view that requests are answered with, to the report.

    Raises:
        TeachingError: a label of the examples was not taught.
    """
    index = {label: number for number, label in enumerate(taught.labels)}
    if unknown := sorted(set(examples.labels) - index.keys()):
        raise TeachingError(
            f"clips to validate on have labels that are not taught: {', '.join(map(repr, unknown))}"
        )
    classes = np.array([index[label] for label in examples.labels])
    scores = softmax(taught.head.evidence(examples.features[:, 0]).mean(axis=1, dtype=np.float64))
    answers = scores.argmax(axis=1)
    right, unsure = answers == classes, scores.max(axis=1) < taught.threshold
    confusion = np.zeros((len(index), len(index)), np.int64)
    np.add.at(confusion, (classes, answers), 1)
    validation = Validation(
        accuracy=accuracy_of(int(right.sum()), len(right)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        unsure=int(unsure.sum()),
        unsure_wrong=int((unsure & ~right).sum()),
    )
    return replace(taught, report=replace(taught.report, validation=validation))


def _suspects(
    names: Sequence[str], labels: tuple[str, ...], classes: NDArray[np.int64], left_out: LeftOut
) -> tuple[Suspect, ...]:
    """Return clips that a classifier of the other clips labels differently, the highest score first."""
    answers, best = left_out.scores.argmax(axis=1), left_out.scores.max(axis=1)
    suspect = np.flatnonzero(left_out.known & (answers != classes) & (best >= SUSPECT_SCORE))
    ordered = suspect[np.argsort(-best[suspect], kind="stable")][:MAX_SUSPECTS]
    return tuple(
        Suspect(names[clip], labels[classes[clip]], labels[answers[clip]], float(best[clip]))
        for clip in ordered
    )


def _warnings(examples: Examples, labels: tuple[str, ...]) -> Iterator[str]:
    """Yield reasons why the measured accuracy is uncertain."""
    counts = Counter(examples.labels)
    if few := [label for label in labels if counts[label] < FEW_CLIPS]:
        yield f"Fewer than {FEW_CLIPS} clips of {', '.join(few)}: the accuracy is uncertain."
    if examples.groups is None:
        return
    if len(set(examples.groups)) == 1:
        yield "All clips are of one group, so how well the model does for another group is unknown."
        return
    groups: dict[str, set[str]] = {}
    for label, group in zip(examples.labels, examples.groups, strict=True):
        groups.setdefault(label, set()).add(group)
    if alone := [label for label in labels if len(groups[label]) == 1]:
        yield f"All clips of {', '.join(alone)} are of one group: the cross-validation counts them as wrong."

"""Validation of a learned head on held-out clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.teaching.examples import Examples, TeachingError
from service.teaching.learning.calibration import accuracy_of, softmax
from service.teaching.learning.learn import Taught
from service.teaching.report import Validation


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

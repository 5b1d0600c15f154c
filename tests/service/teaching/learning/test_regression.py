"""The regression finds the minimum of its loss."""

from __future__ import annotations

import numpy as np
import pytest

from service.teaching.learning.regression import LinearClassifier, fit, untrained


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_gradient_vanishes_at_the_result(penalty: float) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(40, 12)).astype(np.float32)
    classes = random.integers(0, 3, 40)
    weights = random.uniform(0.5, 2.0, 40)
    found = fit(rows, classes, weights, penalty, untrained(12, 3))
    logits = found.logits(rows)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    errors = (weights / weights.sum())[:, None] * (chances - np.eye(3)[classes])
    assert np.abs(rows.T @ errors + penalty * found.weights).max() < 2e-4
    assert np.abs(errors.sum(axis=0)).max() < 2e-4


def test_start_does_not_change_the_result() -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(30, 5)).astype(np.float32)
    classes = random.integers(0, 4, 30)
    start = LinearClassifier(random.normal(size=(5, 4)), random.normal(size=4))
    first = fit(rows, classes, np.ones(30), 0.1, untrained(5, 4))
    second = fit(rows, classes, np.ones(30), 0.1, start)
    np.testing.assert_allclose(first.weights, second.weights, atol=5e-3)

"""Multinomial logistic regression with an L2 penalty, in numpy.

The loss is convex and smooth, so a limited-memory BFGS (Nocedal and Wright, Numerical Optimization, 2006,
algorithm 7.5) finds its minimum. scipy and scikit-learn have the same solver; they would add a hundred
megabytes to a serving image for these lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Evaluate = Callable[[Floats], tuple[float, Floats]]

MEMORY = 10  # pairs of steps and gradient changes that approximate the curvature
MAX_ITERATIONS = 300
# Largest gradient component at which the fit stops, for a loss near 1. With rows in float32 the gradient is
# not more precise than 1e-5.
TOLERANCE = 1e-4
SUFFICIENT_DECREASE = 1e-4
SHORTEST_STEP = 1e-10


@dataclass(frozen=True)
class LinearClassifier:
    """Logits `x @ weights + bias`: `weights` float64 `(D, C)`, `bias` float64 `(C,)`."""

    weights: Floats
    bias: Floats

    def logits(self, rows: NDArray[np.float32]) -> Floats:
        """Logits float64 `(m, C)` of rows `(m, D)`."""
        return np.asarray(rows @ self.weights.astype(np.float32) + self.bias, np.float64)


def fit(
    rows: NDArray[np.float32],
    classes: NDArray[np.int64],
    weights: Floats,
    penalty: float,
    start: LinearClassifier,
) -> LinearClassifier:
    """Minimise `sum(weights * cross entropy) / sum(weights) + penalty / 2 * |W|^2`, the bias free.

    Args:
        rows: float32 `(m, D)`, standardised.
        classes: int64 `(m,)`, from 0 to C - 1.
        weights: float64 `(m,)`, weights of the rows.
        penalty: Strength of the penalty, above 0.
        start: Starting point; its `(D, C)` determines the shape.
    """
    shape = start.weights.shape
    share = (weights / weights.sum())[:, None]
    targets = np.eye(shape[1])[classes]

    def evaluate(flat: Floats) -> tuple[float, Floats]:
        matrix, bias = flat[: -shape[1]].reshape(shape), flat[-shape[1] :]
        logits = LinearClassifier(matrix, bias).logits(rows)
        logits -= logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        errors = share * (np.exp(logits - log_sums) - targets)
        loss = float((share * targets * (log_sums - logits)).sum() + penalty / 2 * (matrix**2).sum())
        gradient = rows.T @ errors.astype(np.float32) + penalty * matrix
        return loss, np.concatenate([gradient.ravel(), errors.sum(axis=0)])

    found = minimise(evaluate, np.concatenate([start.weights.ravel(), start.bias]))
    return LinearClassifier(found[: -shape[1]].reshape(shape), found[-shape[1] :])


def untrained(size: int, classes: int) -> LinearClassifier:
    """Return an all-zero classifier as a start for `fit`."""
    return LinearClassifier(np.zeros((size, classes)), np.zeros(classes))


def minimise(evaluate: Evaluate, start: Floats) -> Floats:
    """Find the minimum of a smooth convex function with L-BFGS.

    Args:
        evaluate: value and gradient at a point.
        start: first point.
    """
    point = start
    value, gradient = evaluate(point)
    pairs: deque[tuple[Floats, Floats]] = deque(maxlen=MEMORY)
    for _ in range(MAX_ITERATIONS):
        if np.abs(gradient).max() < TOLERANCE:
            break
        direction = -_inverse_hessian(gradient, pairs)
        slope = float(gradient @ direction)
        step = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        while True:
            candidate = point + step * direction
            new_value, new_gradient = evaluate(candidate)
            if new_value <= value + SUFFICIENT_DECREASE * step * slope or step < SHORTEST_STEP:
                break
            step /= 2
        moved, change = candidate - point, new_gradient - gradient
        if step < SHORTEST_STEP:
            break  # no decrease within the precision of float32
        if float(moved @ change) > 0:
            pairs.append((moved, change))
        point, value, gradient = candidate, new_value, new_gradient
    return point


def _inverse_hessian(gradient: Floats, pairs: deque[tuple[Floats, Floats]]) -> Floats:
    """Return the approximate inverse Hessian times `gradient`, by the two-loop recursion of L-BFGS."""
    result = gradient.copy()
    factors = []
    for moved, change in reversed(pairs):
        factor = float(moved @ result) / float(moved @ change)
        result -= factor * change
        factors.append(factor)
    if pairs:
        moved, change = pairs[-1]
        result *= float(moved @ change) / float(change @ change)
    for (moved, change), factor in zip(pairs, reversed(factors), strict=True):
        result += moved * (factor - float(change @ result) / float(moved @ change))
    return result

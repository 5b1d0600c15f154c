"""A head: a linear classifier on the features of a base model, with weights for each segment of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SEGMENTS = 4


@dataclass(frozen=True)
class Head:
    """`evidence[t] = bias + Q * weights[q(t)]^T features[t]`, where segment q holds T'/Q moments.

    The logits are its mean: `bias + sum over q of weights[q]^T (mean of the features in segment q)`.

    Attributes:
        weights: float32 `(Q, F, C)`.
        bias: float32 `(C,)`.
        temperature: Scores are `softmax(logits / temperature)`.

    Raises:
        ValueError: the shapes do not match, a value is not finite, or the temperature is not positive.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.weights.ndim != 3 or not all(self.weights.shape):
            raise ValueError(f"weights must be (Q, F, C), they are {self.weights.shape}")
        if self.bias.shape != (self.classes,):
            raise ValueError(f"bias must be ({self.classes},), it is {self.bias.shape}")
        if self.weights.dtype != np.float32 or self.bias.dtype != np.float32:
            raise ValueError("weights and bias must be float32")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise ValueError("weights and bias must be finite")
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature must be positive, it is {self.temperature}")

    @property
    def segments(self) -> int:
        """Q."""
        return int(self.weights.shape[0])

    @property
    def feature_size(self) -> int:
        """F."""
        return int(self.weights.shape[1])

    @property
    def classes(self) -> int:
        """C."""
        return int(self.weights.shape[2])

    def evidence(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the evidence of every moment, float32 `(N, T', C)`, from features `(N, T', F)`.

        Its mean over the moments is the logits.

        Raises:
            ValueError: F differs from `feature_size`, or Q does not divide T'.
        """
        views, moments, size = features.shape
        if size != self.feature_size or moments % self.segments:
            raise ValueError(f"features (N, {moments}, {size}) do not fit weights {self.weights.shape}")
        # (Q, N * T'/Q, F) @ (Q, F, C): one product for each segment.
        parts = features.reshape(views, self.segments, -1, size).swapaxes(0, 1)
        products = parts.reshape(self.segments, -1, size) @ self.weights
        evidence: NDArray[np.float32] = products.reshape(self.segments, views, -1, self.classes).swapaxes(
            0, 1
        )
        return evidence.reshape(views, moments, self.classes) * np.float32(self.segments) + self.bias


def segment_count(moments: int) -> int:
    """Return Q for T' moments: the largest divisor of T' up to `MAX_SEGMENTS`."""
    return max(count for count in range(1, MAX_SEGMENTS + 1) if moments % count == 0)


def pooled(features: NDArray[np.float32], segments: int) -> NDArray[np.float32]:
    """Means over each segment, float32 `(..., Q * F)`, from features `(..., T', F)`; Q must divide T'."""
    *leading, moments, size = features.shape
    parts = features.reshape(*leading, segments, moments // segments, size)
    means: NDArray[np.float32] = parts.mean(axis=-2, dtype=np.float32)
    return means.reshape(*leading, segments * size)

"""Examples as rows of numbers: one row for each view, its features averaged over each segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.teaching.examples import Examples
from service.teaching.head import pooled
from service.teaching.learning.regression import LinearClassifier, fit, untrained

Indices = NDArray[np.int64]

# Above this many numbers, 400 MB of float32, some views of each example are left out.
MAX_NUMBERS = 100_000_000


@dataclass(frozen=True)
class PooledExamples:
    """n examples of V views with D = Q F numbers each.

    The weights of a classifier with an L2 penalty are a combination of the examples. If there are fewer
    examples than numbers, the examples are stored as coordinates in the space that they span: the result is
    the same, and the fits take a fraction of the time.

    Attributes:
        rows: float32 `(n, V, R)`, coordinates; the first view is the one that requests are answered with.
        basis: float32 `(D, R)`, orthonormal columns; None if the coordinates are the numbers themselves.
        classes: int64 `(n, V)`, the class of each view: the class of the example, or its mirror image.
        class_count: C.
        groups: n groups.
    """

    rows: NDArray[np.float32]
    basis: NDArray[np.float32] | None
    classes: Indices
    class_count: int
    groups: tuple[str, ...]

    @classmethod
    def of(
        cls, examples: Examples, labels: tuple[str, ...], segments: int, mirror: tuple[int, ...] | None
    ) -> PooledExamples:
        """Pool the features of `examples`, whose labels become indices of `labels`."""
        index = {label: number for number, label in enumerate(labels)}
        classes = np.array([index[label] for label in examples.labels])
        views = examples.features.shape[1]
        of_views = np.repeat(classes[:, None], views, axis=1)
        if mirror is not None:
            of_views[:, views // 2 :] = np.array(mirror)[classes][:, None]
        size = segments * examples.features.shape[3]
        kept = max(1, min(views, MAX_NUMBERS // (len(classes) * size)))
        chosen = np.linspace(0, views, kept, endpoint=False).astype(np.int64)
        groups = list(examples.groups or [])
        if len(set(groups)) < 2:  # holding out the only group would leave nothing to learn from
            groups = [f"clip {number}" for number in range(len(classes))]
        rows = pooled(examples.features[:, chosen], segments)
        basis = None
        if len(classes) * kept < size:
            basis, coordinates = np.linalg.qr(rows.reshape(-1, size).T)
            rows = coordinates.T.reshape(len(classes), kept, -1)
        return cls(rows, basis, of_views[:, chosen], len(labels), tuple(groups))

    @property
    def labels(self) -> Indices:
        """int64 `(n,)`, the class of each example."""
        return self.classes[:, 0]

    def weights(self, chosen: Indices) -> NDArray[np.float64]:
        """Return weights for the examples `chosen` that give all classes the same total weight."""
        counts = np.bincount(self.labels[chosen], minlength=self.class_count)
        return 1.0 / counts[self.labels[chosen]]

    def fit(self, chosen: Indices, penalty: float, start: LinearClassifier | None = None) -> LinearClassifier:
        """Fit a classifier to the examples `chosen`; it takes the coordinates without scaling.

        The fit centres the features and divides them by one common deviation. With a separate deviation for
        each, features that hardly vary would get as much weight as the others.

        Args:
            chosen: int64, which examples.
            penalty: see `service.teaching.learning.regression.fit`.
            start: a similar classifier, from an earlier call.
        """
        rows = self.rows[chosen].reshape(-1, self.rows.shape[2])
        mean = rows.mean(axis=0, dtype=np.float64)
        size = rows.shape[1] if self.basis is None else len(self.basis)
        scale = float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum() / size)) or 1.0
        standardised = ((rows - mean.astype(np.float32)) / np.float32(scale)).astype(np.float32)
        begin = untrained(rows.shape[1], self.class_count)
        if start is not None:
            begin = LinearClassifier(start.weights * scale, start.bias + mean @ start.weights)
        found = fit(
            standardised,
            self.classes[chosen].ravel(),
            np.repeat(self.weights(chosen), self.rows.shape[1]),
            penalty,
            begin,
        )
        weights = found.weights / scale
        return LinearClassifier(weights, found.bias - mean @ weights)

    def logits(self, classifier: LinearClassifier, chosen: Indices) -> NDArray[np.float64]:
        """Return logits `(len(chosen), C)` of the view that requests are answered with."""
        return classifier.logits(self.rows[chosen, 0])

    def of_features(self, classifier: LinearClassifier) -> LinearClassifier:
        """Return the same classifier for pooled features `(..., D)` instead of coordinates."""
        if self.basis is None:
            return classifier
        return LinearClassifier(self.basis @ classifier.weights, classifier.bias)

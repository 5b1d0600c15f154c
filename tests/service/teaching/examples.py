"""Examples for tests: features of made-up actions, which differ in the order of events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.teaching.examples import Examples

MOMENTS, SIZE = 8, 6


def examples(
    counts: dict[str, int],
    *,
    views: int = 2,
    noise: float = 0.5,
    groups: Sequence[str] | None = None,
    seed: int = 1,
    mirrored: bool = False,
) -> Examples:
    """`counts` clips of each label. "up" and "down" are reversals of each other: only the order differs."""
    random = np.random.default_rng(seed)
    features, labels = [], []
    for label, count in counts.items():
        # The same pattern for the same label, regardless of the other labels.
        pattern = np.random.default_rng(sum(map(ord, "up" if label == "down" else label)))
        course = 2 * pattern.normal(size=(MOMENTS, SIZE))
        if label == "down":
            course = course[::-1]
        for _ in range(count):
            features.append(course + noise * random.normal(size=(views, MOMENTS, SIZE)))
            labels.append(label)
    names = [f"clip {number}" for number in range(len(labels))]
    return Examples(np.array(features, np.float32), labels, names, groups, mirrored)

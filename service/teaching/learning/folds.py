"""Folds of a set of examples for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_FOLDS = 5


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

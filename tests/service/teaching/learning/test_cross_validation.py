"""Folds of groups."""

from __future__ import annotations

import numpy as np

from service.teaching.learning.cross_validation import grouped_folds


def test_no_group_is_in_two_folds_and_labels_spread() -> None:
    random = np.random.default_rng(1)
    groups = [f"g{number}" for number in random.integers(0, 12, 100)]
    classes = random.integers(0, 3, 100)
    folds = grouped_folds(classes, groups)
    assert set(folds) == set(range(5))
    for group in set(groups):
        assert len({fold for fold, own in zip(folds, groups, strict=True) if own == group}) == 1
    for fold in range(5):
        assert set(classes[folds == fold]) == {0, 1, 2}


def test_clips_without_groups_are_spread_evenly() -> None:
    classes = np.repeat([0, 1], 10)
    folds = grouped_folds(classes, [str(number) for number in range(20)])
    for fold in range(5):
        assert np.bincount(classes[folds == fold]).tolist() == [2, 2]


def test_number_of_folds_is_at_most_that_of_groups() -> None:
    assert set(grouped_folds(np.array([0, 1, 0, 1]), ["a", "a", "b", "b"])) == {0, 1}
    assert set(grouped_folds(np.array([0, 1]), ["a", "a"])) == {0}

"""Splits a folder that has none: 70 % of the videos to train on, 15 % to validate, 15 % to test.

The split is the same on every machine and in every run. With a groups file, whole groups are assigned, so
that no group is in two splits. Without one, each label is split separately, in the order of a hash of the
files' names, so adding a video moves few of the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from model_export.datasets.listing import Example
from service.errors import BlvnetError

SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}


def assign_splits(examples: Sequence[Example]) -> dict[str, tuple[Example, ...]]:
    """Split examples; by group if they have groups.

    Returns:
        Split -> its examples, in their order. With two groups there is no test split.

    Raises:
        BlvnetError: there are too few videos or groups to train and to validate.
    """
    grouped = any(example.group is not None for example in examples)
    assigned = _by_group(examples) if grouped else _by_label(examples)
    splits = {
        split: tuple(example for example, given in zip(examples, assigned, strict=True) if given == split)
        for split in SHARES
    }
    for split in ("train", "val"):
        if not splits[split]:
            what = "groups in groups.csv" if grouped else "videos of each label"
            raise BlvnetError(
                f"there are too few {what} to split the folder: put videos into train/ and val/ yourself"
            )
    return splits


def _by_label(examples: Sequence[Example]) -> list[str]:
    """Put at least one video of a label into `val` if it has two, and one into `test` if it has three."""
    by_label: dict[int, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        by_label[example.label].append(position)
    assigned = ["train"] * len(examples)
    for positions in by_label.values():
        names = {position: examples[position].path.name.encode() for position in positions}
        order = sorted(positions, key=lambda position: hashlib.sha256(names[position]).hexdigest())
        count = len(order)
        val = max(1, round(SHARES["val"] * count)) if count > 1 else 0
        test = max(1, round(SHARES["test"] * count)) if count > 2 else 0
        for position in order[:val]:
            assigned[position] = "val"
        for position in order[val : val + test]:
            assigned[position] = "test"
    return assigned


def _by_group(examples: Sequence[Example]) -> list[str]:
    """Assign large groups first, each to the split that it brings closest to its share of the labels."""
    labels: dict[str, Counter[int]] = defaultdict(Counter)
    for example in examples:
        labels[example.group or ""][example.label] += 1
    totals = Counter(example.label for example in examples)
    shares = SHARES if len(labels) > 2 else {"train": 0.7, "val": 0.3}
    lacking = {
        split: {label: share * total for label, total in totals.items()} for split, share in shares.items()
    }
    split_of: dict[str, str] = {}
    for group in sorted(labels, key=lambda name: (-labels[name].total(), name)):
        left = len(labels) - len(split_of)
        empty = [split for split in shares if split not in split_of.values()]
        candidates = empty if left <= len(empty) else list(shares)

        def gain(split: str, group: str = group) -> float:
            """How much closer the group brings the split to its share of the labels."""
            wanted = lacking[split]
            return sum(
                wanted[label] ** 2 - (wanted[label] - count) ** 2 for label, count in labels[group].items()
            )

        chosen = max(candidates, key=gain)
        split_of[group] = chosen
        for label, count in labels[group].items():
            lacking[chosen][label] -= count
    return [split_of[example.group or ""] for example in examples]

"""Accuracies of predictions: top-k, by class, by group, within reversed pairs; average precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.datasets.reading import Unreadable
from model_export.evaluation.intervals import wilson
from model_export.evaluation.predictions import Predictions
from model_export.metrics import average_precisions

TOP = 5

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Counts and accuracies of videos with one label each.

    Attributes:
        labels: names of the classes.
        confusion: int64 `(C, C)`, examples of the row's class that were given the column's.
        ranks: int64 `(C,)`, number of examples whose label had rank 1, 2, ..., C.
        pairs: pairs of reversed labels, as indices.
        unreadable: examples that could not be read; they are not counted.
        groups: for each group the number of its correctly labelled examples, and of all its examples.
    """

    labels: tuple[str, ...]
    confusion: Counts
    ranks: Counts
    pairs: tuple[tuple[int, int], ...]
    unreadable: tuple[Unreadable, ...]
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Number of scored examples."""
        return int(self.confusion.sum())

    def top_accuracy(self, k: int) -> float:
        """Share of the examples whose label is among the k best."""
        return float(self.ranks[:k].sum()) / self.examples

    @property
    def top1_accuracy(self) -> float:
        """Share of the examples whose best label is right."""
        return self.top_accuracy(1)

    @property
    def top5_accuracy(self) -> float:
        """Share of the examples whose label is among the five best."""
        return self.top_accuracy(TOP)

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % interval of top-1."""
        return wilson(int(self.ranks[0]), self.examples)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the accuracies of the classes that have examples."""
        return float(np.mean([share for share in self.class_accuracy().values() if share is not None]))

    def class_accuracy(self) -> dict[str, float | None]:
        """Top-1 of each class; None for a class without examples."""
        totals = self.confusion.sum(axis=1)
        right = np.diag(self.confusion)
        return {
            label: float(right[index] / totals[index]) if totals[index] else None
            for index, label in enumerate(self.labels)
        }

    def pair_accuracy(self) -> float | None:
        """Top-1 on the examples of reversed pairs; None without pairs.

        A network that ignores the order of frames gets at most half of them right.
        """
        members = [index for pair in self.pairs for index in pair]
        total = int(self.confusion[members].sum())
        return float(np.diag(self.confusion)[members].sum() / total) if total else None

    def reversed_rate(self) -> float | None:
        """Share of the examples of reversed pairs that were given the reversed label; None without pairs."""
        total = sum(int(self.confusion[[a, b]].sum()) for a, b in self.pairs)
        swapped = sum(int(self.confusion[a, b] + self.confusion[b, a]) for a, b in self.pairs)
        return swapped / total if total else None

    def worst_confusions(self, count: int) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: true label, given label, examples."""
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [np.unravel_index(int(place), wrong.shape) for place in order]
        return [(self.labels[i], self.labels[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet evaluate --json`."""
        return {
            "clips": self.examples,
            "top1": self.top1_accuracy,
            "top1_interval": list(self.top1_interval),
            "top5": self.top5_accuracy,
            "mean_class": self.mean_class_accuracy,
            "reverse_pairs_top1": self.pair_accuracy(),
            "reverse_pairs_swapped": self.reversed_rate(),
            "per_class": self.class_accuracy(),
            "per_group": {
                group: {"top1": right / total, "clips": total}
                for group, (right, total) in self.groups.items()
            },
            "confusion": self.confusion.tolist(),
            "unreadable": unreadable_to_json(self.unreadable),
        }


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """Average precisions of videos with several labels.

    Attributes:
        labels: names of the classes.
        precisions: for each class its average precision; NaN for a class without examples.
        examples: number of scored examples.
        hits: examples whose best label is one of theirs.
        unreadable: examples that could not be read; they are not counted.
    """

    labels: tuple[str, ...]
    precisions: npt.NDArray[np.float64]
    examples: int
    hits: int
    unreadable: tuple[Unreadable, ...]

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that have examples, as published for Charades and Multi-Moments in Time."""
        return float(np.nanmean(self.precisions))

    def class_precision(self) -> dict[str, float | None]:
        """Average precision of each class; None for a class without examples."""
        return {
            label: None if np.isnan(value) else float(value)
            for label, value in zip(self.labels, self.precisions, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet evaluate --json`."""
        return {
            "clips": self.examples,
            "map": self.mean_average_precision,
            "hit1": self.hits / self.examples,
            "per_class": self.class_precision(),
            "unreadable": unreadable_to_json(self.unreadable),
        }


def evaluate_predictions(predictions: Predictions, pairs: tuple[tuple[int, int], ...] = ()) -> Evaluation:
    """Count right and wrong predictions; `pairs` are the reversed pairs of the labels."""
    classes = len(predictions.labels)
    confusion = np.zeros((classes, classes), np.int64)
    ranking = np.argsort(-predictions.logits, axis=1, kind="stable")
    np.add.at(confusion, (predictions.targets, ranking[:, 0]), 1)
    ranks = (ranking == predictions.targets[:, None]).argmax(axis=1)
    groups: dict[str, tuple[int, int]] = {}
    for group, rank in sorted(zip(predictions.groups, ranks.tolist(), strict=bool(predictions.groups))):
        right, total = groups.get(group, (0, 0))
        groups[group] = (right + (rank == 0), total + 1)
    return Evaluation(
        predictions.labels,
        confusion,
        np.bincount(ranks, minlength=classes),
        pairs,
        predictions.unreadable,
        groups,
    )


def evaluate_multi_label(predictions: Predictions) -> MultiLabelEvaluation:
    """Average precisions of videos with several labels."""
    best = predictions.logits.argmax(axis=1)
    return MultiLabelEvaluation(
        predictions.labels,
        average_precisions(predictions.logits, predictions.targets),
        len(predictions.paths),
        int(predictions.targets[np.arange(len(best)), best].sum()),
        predictions.unreadable,
    )


def unreadable_to_json(items: tuple[Unreadable, ...]) -> list[dict[str, str]]:
    """Examples that could not be read, as plain values."""
    return [{"path": str(item.path), "reason": item.reason} for item in items]

"""Comparison of two networks by their predictions for the same videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.datasets.labels import check_same
from model_export.evaluation.intervals import Interval, bootstrap, mcnemar, paired_difference
from model_export.evaluation.predictions import Predictions
from model_export.metrics import mean_average_precision
from service.errors import BlvnetError


@dataclass(frozen=True)
class Measure:
    """One accuracy of both networks, and the interval of the second minus the first."""

    name: str
    first: float
    second: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.second - self.first,
            "interval": list(self.interval),
        }


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same clips.

    Attributes:
        clips: number of clips that both files have.
        only_in_first: number of clips that only the first file has.
        only_in_second: number of clips that only the second file has.
        measures: the accuracies.
        losses: number of clips that only the first network labels right; None for videos with several labels.
        gains: number of clips that only the second network labels right; None for videos with several labels.
        p_value: p-value of McNemar's exact test; None for videos with several labels.
        agreement: share of the clips with the same best label.
    """

    clips: int
    only_in_first: int
    only_in_second: int
    measures: tuple[Measure, ...]
    losses: int | None
    gains: int | None
    p_value: float | None
    agreement: float

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet compare --json`."""
        return {
            "clips": self.clips,
            "only_in_first": self.only_in_first,
            "only_in_second": self.only_in_second,
            **{measure.name: measure.to_json() for measure in self.measures},
            "losses": self.losses,
            "gains": self.gains,
            "p_value": self.p_value,
            "agreement": self.agreement,
        }


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compare two networks, clip by clip.

    Clips are paired by path, or by folder and name if no path is in both files.

    Raises:
        BlvnetError: the labels differ, no clip is in both files, or a clip has different labels in them.
    """
    check_same(first.labels, second.labels)
    rows = _pair(first.paths, second.paths)
    mine, theirs = rows[:, 0], rows[:, 1]
    targets = first.targets[mine]
    if targets.shape != second.targets[theirs].shape or (targets != second.targets[theirs]).any():
        raise BlvnetError("the files give the same clips other labels, so they are not of the same data set")
    a, b = first.logits[mine], second.logits[theirs]
    count = len(rows)
    losses = gains = p_value = None
    measures: tuple[Measure, ...]
    if first.multi_label:

        def precision(logits: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64]) -> float:
            return mean_average_precision(logits[chosen], targets[chosen])

        everything = np.arange(count)
        interval = bootstrap(lambda chosen: precision(b, chosen) - precision(a, chosen), count)
        measures = (Measure("map", precision(a, everything), precision(b, everything), interval),)
    else:
        right_a, right_b = (logits.argmax(axis=1) == targets for logits in (a, b))
        losses, gains = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        p_value = mcnemar(losses, gains)

        def mean_class(right: npt.NDArray[np.bool_], chosen: npt.NDArray[np.int64]) -> float:
            totals = np.bincount(targets[chosen], minlength=len(first.labels))
            rights = np.bincount(targets[chosen], weights=right[chosen], minlength=len(first.labels))
            return float((rights[totals > 0] / totals[totals > 0]).mean())

        everything = np.arange(count)
        measures = (
            Measure(
                "top1",
                float(right_a.mean()),
                float(right_b.mean()),
                paired_difference(losses, gains, count),
            ),
            Measure(
                "mean_class",
                mean_class(right_a, everything),
                mean_class(right_b, everything),
                bootstrap(lambda chosen: mean_class(right_b, chosen) - mean_class(right_a, chosen), count),
            ),
        )
    return Comparison(
        count,
        len(first.paths) - count,
        len(second.paths) - count,
        measures,
        losses,
        gains,
        p_value,
        float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    )


def _pair(first: Sequence[Path], second: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Rows of the same clips in both files, `(n, 2)`.

    Several clips of a list may have the path of one folder of pictures. Only files with the same rows can be
    paired then.
    """
    if first == second:
        return np.stack([np.arange(len(first))] * 2, axis=1)
    for parts in (None, 2):  # whole paths; folder and name, for data that lies elsewhere on another machine
        keys_a, keys_b = (
            [path.parts[-parts:] if parts else path.parts for path in paths] for paths in (first, second)
        )
        repeated = next(
            (key for keys in (keys_a, keys_b) for key, count in Counter(keys).items() if count > 1), None
        )
        if repeated is not None and parts:
            break
        if repeated is not None:
            raise BlvnetError(
                f"{Path(*repeated)} is there several times, so its clips cannot be paired: give two files "
                "with the same clips in the same order"
            )
        position = {key: row for row, key in enumerate(keys_b)}
        rows = [(row, position[key]) for row, key in enumerate(keys_a) if key in position]
        if rows:
            return np.array(rows, np.int64)
    raise BlvnetError("the files have no clip in common: give predictions for the same data set and split")

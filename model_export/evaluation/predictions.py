"""Predictions: the logits of every example of a split, computed, combined, saved and loaded."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model_export.datasets import Listing
from model_export.datasets.labels import check_same
from model_export.datasets.reading import Unreadable
from model_export.evaluation.reading import batched, read_parts
from model_export.evaluation.scorers import Floats, Scorer
from service.clip.geometry import crop_boxes
from service.errors import BlvnetError
from service.packages.files import atomic_write

BATCH_VIEWS = 4  # on a CPU more are not faster; a view of an I3D-50 with 32 frames of 256 pixels takes 0.6 GB
GPU_BATCH_VIEWS = 32
SUFFIXES = (".parquet", ".npz")

Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """The logits of every example that could be read.

    Attributes:
        labels: names of the C classes.
        paths: the n examples.
        targets: int64 `(n,)`, their labels; or `(n, C)` of zeros and ones for videos with several labels.
        logits: float32 `(n, C)`, averaged over views.
        unreadable: the examples that could not be read.
        groups: the groups of the examples, or empty.
        rows: the n positions of the examples in the listing; None for all of it, and in a file.
    """

    labels: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: Targets
    logits: Floats
    unreadable: tuple[Unreadable, ...] = ()
    groups: tuple[str, ...] = ()
    rows: tuple[int, ...] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.targets.ndim == 2

    def save(self, path: Path) -> None:
        """Write a Parquet or npz file, by the suffix.

        Parquet has a row per video with `path`, `target` (a list with several labels), `logits` and, if
        known, `group`; the labels are the JSON list `labels` of the schema's metadata. An npz file has the
        arrays `labels`, `paths`, `targets`, `logits` and `groups`.

        Raises:
            BlvnetError: the file cannot be written, or has another suffix.
        """
        check_predictions_name(path)
        try:
            with atomic_write(path) as file:
                if path.suffix == ".npz":
                    np.savez_compressed(
                        file,
                        labels=np.array(self.labels),
                        paths=np.array([str(path) for path in self.paths]),
                        targets=self.targets,
                        logits=self.logits,
                        groups=np.array(self.groups, dtype=str),
                    )
                else:
                    pq.write_table(self._table(), file)
        except OSError as exc:
            raise BlvnetError(f"{path} cannot be written ({exc.strerror})") from exc

    def _table(self) -> Any:
        classes = len(self.labels)
        targets = [np.flatnonzero(row) for row in self.targets] if self.multi_label else self.targets
        columns = {
            "path": pa.array([str(path) for path in self.paths]),
            "target": pa.array(targets, pa.list_(pa.int64()) if self.multi_label else pa.int64()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(self.logits.ravel()), classes),
        }
        if self.groups:
            columns["group"] = pa.array(self.groups)
        return pa.table(columns).replace_schema_metadata({"labels": json.dumps(self.labels)})


def check_predictions_name(path: Path) -> None:
    """Refuse a file of predictions with an unsupported suffix.

    Raises:
        BlvnetError: the suffix is not one of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise BlvnetError(f"{path}: predictions are in {' or '.join(SUFFIXES)} files; choose one of the two")


def load_predictions(path: Path) -> Predictions:
    """Read a file that `Predictions.save` wrote.

    Raises:
        BlvnetError: the file cannot be read, or is not such a file.
    """
    check_predictions_name(path)
    damaged = f"{path} is not a file of blvnet evaluate --predictions, or is damaged"
    try:
        predictions = _read_predictions(path)
    except FileNotFoundError as exc:
        raise BlvnetError(f"{path}: there is no such file") from exc
    except (
        OSError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        NotImplementedError,  # a zip file with features that Python cannot read
        RuntimeError,  # an encrypted one
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
        pa.ArrowException,
    ) as exc:
        raise BlvnetError(damaged) from exc
    if not _consistent(predictions):
        raise BlvnetError(damaged)
    return predictions


def _consistent(predictions: Predictions) -> bool:
    """Whether the arrays belong together."""
    targets, count, classes = predictions.targets, len(predictions.paths), len(predictions.labels)
    highest = 1 if predictions.multi_label else classes - 1
    return (
        predictions.logits.shape == (count, classes)
        and targets.shape in ((count,), (count, classes))
        and np.issubdtype(targets.dtype, np.integer)
        and (not targets.size or (targets.min() >= 0 and targets.max() <= highest))
    )


def _read_predictions(path: Path) -> Predictions:
    if path.suffix == ".npz":
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return Predictions(
                tuple(map(str, file["labels"])),
                tuple(map(Path, file["paths"])),
                file["targets"],
                file["logits"],
                groups=tuple(map(str, file["groups"])) if "groups" in file else (),
            )
    table = pq.read_table(path)
    labels = tuple(json.loads((table.schema.metadata or {})[b"labels"]))
    targets = table["target"].to_pylist()
    if targets and isinstance(targets[0], list):
        rows = np.zeros((len(targets), len(labels)), np.int64)
        for row, own in zip(rows, targets, strict=True):
            row[own] = 1
    logits = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        labels,
        tuple(map(Path, table["path"].to_pylist())),
        rows if targets and isinstance(targets[0], list) else np.array(targets, np.int64),
        logits.reshape(-1, len(labels)),
        groups=tuple(table["group"].to_pylist()) if "group" in table.column_names else (),
    )


def predict_listing(
    scorer: Scorer,
    listing: Listing,
    *,
    clips: int,
    crops: int,
    jobs: int,
    advance: Callable[[int], None],
    batch_views: int = BATCH_VIEWS,
) -> Predictions:
    """Score every example of a listing.

    Args:
        scorer: the network.
        listing: the examples; its labels must be the network's.
        clips: temporal positions to average over.
        crops: crops to average over.
        jobs: threads that decode ahead.
        advance: called with 1 after each example.
        batch_views: number of views in a batch, of one example or of several.

    Raises:
        BlvnetError: the labels differ, no example can be read, or `crops` mirrors views and the mirrored
            counterpart of a label is unknown.
    """
    check_same(scorer.labels, listing.labels)
    mirrored = np.tile([crop.mirrored for crop in crop_boxes(1, 1, 1, crops)], clips)
    mirror = _find_mirror(scorer, listing) if mirrored.any() else None
    examples = listing.examples
    totals = np.zeros((len(examples), len(listing.labels)))
    unreadable: dict[int, Unreadable] = {}

    def parts() -> Any:
        for part in read_parts(examples, scorer.clip, clips=clips, crops=crops, jobs=jobs):
            if isinstance(part.inputs, Unreadable):
                unreadable.setdefault(part.index, part.inputs)
            yield part
            if part.last:
                advance(1)

    for batch in batched(parts(), batch_views):
        logits = scorer.logits(batch.inputs)
        # A mirrored view of "left" looks like "right", so its logit of "right" counts for "left".
        if mirror:
            flipped = mirrored[batch.views]
            logits[flipped] = logits[flipped][:, mirror]
        np.add.at(totals, batch.examples, logits)
    kept = [index for index in range(len(examples)) if index not in unreadable]
    if not kept:
        first = unreadable[min(unreadable)]
        raise BlvnetError(f"none of {len(unreadable)} files can be read; the first: {first.reason}")
    groups = [examples[index].group for index in kept]
    return Predictions(
        listing.labels,
        tuple(examples[index].path for index in kept),
        _targets(listing, kept),
        (totals[kept] / (clips * crops)).astype(np.float32),
        tuple(unreadable[index] for index in sorted(unreadable)),
        tuple(map(str, groups)) if all(group is not None for group in groups) else (),
        tuple(kept),
    )


def combine(members: Sequence[Predictions]) -> Predictions:
    """The ensemble of several networks: the mean of their probabilities, as logits.

    Probabilities are those of the softmax, or of the sigmoid for videos with several labels. An example that
    one network could not read is left out.

    Raises:
        BlvnetError: the networks have different labels.
    """
    first, *others = members
    for other in others:
        check_same(first.labels, other.labels)
    rows = [range(len(member.paths)) if member.rows is None else member.rows for member in members]
    # By row, because a listing may have several spans of a video.
    common = set(rows[0]).intersection(*rows[1:])
    kept = [[row in common for row in own] for own in rows]
    unreadable: dict[int, Unreadable] = {}
    for member, own in zip(members, rows, strict=True):
        missing = sorted(set(range(len(own) + len(member.unreadable))) - set(own))
        unreadable |= dict(zip(missing, member.unreadable, strict=True))
    logits = [member.logits[keep].astype(np.float64) for member, keep in zip(members, kept, strict=True)]
    # Sums of probabilities as logarithms: a probability that rounds to 0 or 1 still has its rank.
    if first.multi_label:
        present = np.logaddexp.reduce([-np.logaddexp(0, -values) for values in logits])
        absent = np.logaddexp.reduce([-np.logaddexp(0, values) for values in logits])
        combined = present - absent
    else:
        normalised = [values - np.logaddexp.reduce(values, axis=1, keepdims=True) for values in logits]
        combined = np.logaddexp.reduce(normalised) - np.log(len(logits))
    keep = kept[0]
    return replace(
        first,
        paths=tuple(path for path, kept_ in zip(first.paths, keep, strict=True) if kept_),
        targets=first.targets[keep],
        logits=combined.astype(np.float32),
        unreadable=tuple(unreadable[row] for row in sorted(unreadable)),
        groups=tuple(group for group, kept_ in zip(first.groups, keep, strict=True) if kept_)
        if first.groups
        else (),
        rows=tuple(sorted(common)),
    )


def _targets(listing: Listing, kept: Sequence[int]) -> Targets:
    if not listing.multi_label:
        return np.array([listing.examples[index].label for index in kept], np.int64)
    targets = np.zeros((len(kept), len(listing.labels)), np.int64)
    for row, index in zip(targets, kept, strict=True):
        row[list(listing.examples[index].labels)] = 1
    return targets


def _find_mirror(scorer: Scorer, listing: Listing) -> list[int]:
    """The mirrored counterpart of every label, from the network's file or the data set."""
    unknown = listing.labels[0]
    for mirror in (scorer.mirror, listing.symmetry.mirrored):
        known = [index for index in mirror or () if index is not None]
        if len(known) == len(listing.labels):
            return known
        if mirror is not None:
            unknown = listing.labels[mirror.index(None)]
    raise BlvnetError(
        f"these crops average mirrored views, but the label of a mirrored {unknown!r} is unknown: "
        "use --crops 5, or add a symmetry.json to the data set"
    )

"""How good a network is on a split: top-1, top-5, per class, within pairs that are each other reversed.

Clips are read as the service reads them, and views are averaged as the service averages
them: so the figures are those of the network as it will be served. Clips are scored either by a checkpoint in
PyTorch or by an exported package in onnxruntime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_export.cache import Unreadable
from model_export.checkpoint import load_network
from model_export.config import ModelConfig
from model_export.datasets import Clip, Listing
from model_export.labels import check_same
from model_export.networks.pixels import normalise
from model_export.reading import Inputs, read_clip
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError
from service.manifest import GRAPH_FILE, read_manifest, verify_graph

TOP = 5
MOST_NAMED = 60  # labels that a picture of the confusion matrix names
UNNAMED_INCHES = 14.0  # its side with more

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Scorer(Protocol):
    """What gives logits for clips; `labels` are in the order of the logits."""

    labels: tuple[str, ...]
    clip: ClipSpec

    def logits(self, inputs: Inputs) -> Floats:
        """Input name -> uint8 `(V, T_branch, size, size, 3)`, to logits `(V, C)`."""
        ...


class CheckpointScorer:
    """A checkpoint that `blvnet train` wrote, in PyTorch and float32."""

    def __init__(self, path: Path) -> None:
        self.network, config, checkpoint = load_network(path)
        if "labels" not in checkpoint.training:
            raise BlvnetError(f"{path} does not say its labels: it was not written by a training run")
        self.labels = tuple(checkpoint.training["labels"])
        self.clip = _trained_clip(config, checkpoint.training)

    def logits(self, inputs: Inputs) -> Floats:
        """See `Scorer`."""
        streams = [normalise(torch.from_numpy(inputs[item.name])) for item in self.clip.inputs]
        with torch.inference_mode():
            evidence = self.network(*streams)
        return np.asarray(evidence.mean(1).numpy(), dtype=np.float32)


class PackageScorer:
    """The highest version of a model package, in onnxruntime on the CPU."""

    def __init__(self, models: Path, name: str) -> None:
        folder = models / name / str(_highest_version(models, name))
        manifest = read_manifest(folder)
        verify_graph(manifest, folder)
        self.labels = manifest.labels
        self.clip = manifest.clip
        self.session = onnxruntime.InferenceSession(folder / GRAPH_FILE, providers=["CPUExecutionProvider"])

    def logits(self, inputs: Inputs) -> Floats:
        """See `Scorer`."""
        (logits,) = self.session.run(["logits"], inputs)
        return np.asarray(logits, dtype=np.float32)


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        labels: names of the classes.
        confusion: int64 `(C, C)`, clips of the row's class that were given the column's.
        top5: int64 `(C,)`, clips of the class whose label was among the five best.
        pairs: reversed pairs, as label indices.
        unreadable: files that gave no clip; they count as wrong nowhere, and are named.
    """

    labels: tuple[str, ...]
    confusion: Counts
    top5: Counts
    pairs: tuple[tuple[int, int], ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def clips(self) -> int:
        """How many clips were scored."""
        return int(self.confusion.sum())

    @property
    def top1_accuracy(self) -> float:
        """Fraction of clips whose best label is theirs."""
        return float(np.trace(self.confusion)) / self.clips

    @property
    def top5_accuracy(self) -> float:
        """Fraction of clips whose label is among the five best."""
        return float(self.top5.sum()) / self.clips

    def class_accuracy(self) -> dict[str, float | None]:
        """Top-1 of each class; None where the split has no clip of it."""
        totals = self.confusion.sum(axis=1)
        right = np.diag(self.confusion)
        return {
            label: float(right[index] / totals[index]) if totals[index] else None
            for index, label in enumerate(self.labels)
        }

    def pair_accuracy(self) -> float | None:
        """Top-1 over the clips of reversed pairs; None without pairs.

        A network that cannot tell forwards from backwards gets at most half of them.
        """
        members = [index for pair in self.pairs for index in pair]
        total = int(self.confusion[members].sum())
        return float(np.diag(self.confusion)[members].sum() / total) if total else None

    def reversed_rate(self) -> float | None:
        """Fraction of the clips of reversed pairs that were given the partner's label; None without pairs."""
        total = sum(int(self.confusion[[a, b]].sum()) for a, b in self.pairs)
        swapped = sum(int(self.confusion[a, b] + self.confusion[b, a]) for a, b in self.pairs)
        return swapped / total if total else None

    def worst_confusions(self, count: int) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: true label, given label, clips."""
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [np.unravel_index(int(place), wrong.shape) for place in order]
        return [(self.labels[i], self.labels[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]

    def to_json(self) -> dict[str, Any]:
        """The whole result as plain values."""
        return {
            "clips": self.clips,
            "top1": self.top1_accuracy,
            "top5": self.top5_accuracy,
            "reverse_pairs_top1": self.pair_accuracy(),
            "reverse_pairs_swapped": self.reversed_rate(),
            "per_class": self.class_accuracy(),
            "confusion": self.confusion.tolist(),
            "unreadable": [{"path": str(item.path), "reason": item.reason} for item in self.unreadable],
        }


def evaluate_listing(
    scorer: Scorer, listing: Listing, *, clips: int, crops: int, jobs: int, tick: Callable[[int], None]
) -> Evaluation:
    """Score every clip of a listing.

    Args:
        scorer: the network.
        listing: the clips; its labels must be the network's.
        clips: samplings in time that are averaged.
        crops: places that are averaged.
        jobs: threads that decode ahead.
        tick: called with 1 after each file.

    Raises:
        BlvnetError: the labels differ, or no clip can be read.
    """
    check_same(scorer.labels, listing.labels)
    count = len(listing.labels)
    confusion = np.zeros((count, count), np.int64)
    top5 = np.zeros(count, np.int64)
    unreadable = []
    for clip, inputs in _decoded(listing.clips, scorer.clip, clips, crops, jobs):
        tick(1)
        if isinstance(inputs, Unreadable):
            unreadable.append(inputs)
            continue
        ranking = np.argsort(-scorer.logits(inputs).mean(axis=0), kind="stable")
        confusion[clip.label, ranking[0]] += 1
        top5[clip.label] += clip.label in ranking[:TOP]
    if not confusion.sum():
        raise BlvnetError(f"none of {len(unreadable)} files can be read; the first: {unreadable[0].reason}")
    return Evaluation(listing.labels, confusion, top5, _reversed_pairs(listing), tuple(unreadable))


def plot_confusion(result: Evaluation, path: Path) -> None:
    """The confusion matrix as a picture: rows are true labels, columns given ones, in % of the row."""
    totals = np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    share = 100 * result.confusion / totals
    named = len(result.labels) <= MOST_NAMED  # more would be a picture that nothing shows
    longest = max(map(len, result.labels))
    side = max(4.0, 0.38 * len(result.labels) + 3 + 0.07 * max(0, longest - 40)) if named else UNNAMED_INCHES
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if named:
        _name_cells(axes, result, share)
    axes.set(xlabel="given label", ylabel="true label")
    axes.set_title(f"top-1 {100 * result.top1_accuracy:.1f} % of {result.clips} clips")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _name_cells(axes: Axes, result: Evaluation, share: npt.NDArray[np.float64]) -> None:
    ticks = range(len(result.labels))
    axes.set_xticks(ticks, result.labels, rotation=90, fontsize=8)
    axes.set_yticks(ticks, result.labels, fontsize=8)
    for row, column in zip(*np.nonzero(result.confusion), strict=True):
        colour = "white" if share[row, column] > 50 else "black"
        text = f"{share[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _trained_clip(config: ModelConfig, training: Mapping[str, Any]) -> ClipSpec:
    """What the network was trained on; as published, where the checkpoint does not say."""
    clip = training.get("clip")
    if clip is None:
        return config.clip_spec()
    return config.clip_spec(Sampling(clip["sampling"]), clip["stride"], clip["inputs"][0]["scale"])


def _decoded(
    files: Iterable[Clip], spec: ClipSpec, clips: int, crops: int, jobs: int
) -> Iterator[tuple[Clip, Inputs | Unreadable]]:
    """Clips in order, a few of them decoded ahead; decoding leaves the interpreter lock most of the time."""

    def read(clip: Clip) -> Inputs | Unreadable:
        try:
            return read_clip(clip, spec, clips=clips, crops=crops)
        except (BlvnetError, OSError) as exc:
            return Unreadable(clip.path, f"{type(exc).__name__}: {exc}")

    ahead: deque[tuple[Clip, Future[Inputs | Unreadable]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for clip in files:
            ahead.append((clip, pool.submit(read, clip)))
            if len(ahead) > 2 * jobs:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _reversed_pairs(listing: Listing) -> tuple[tuple[int, int], ...]:
    """Pairs of different labels that are each other reversed, each once."""
    table = listing.symmetry.reversed
    return tuple((a, b) for a, b in enumerate(table) if b is not None and a < b and table[b] == a)


def _highest_version(models: Path, name: str) -> int:
    folder = models / name
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    versions = [int(entry) for entry in names if entry.isascii() and entry.isdigit()]
    if not versions:
        raise BlvnetError(f"{models} holds no model {name!r}")
    return max(versions)

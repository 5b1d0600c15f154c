"""Clips as training batches: from a cache of decoded frames, or decoded on the way in.

What is drawn (order of clips, phase and crop of each) is decided before anything is loaded, from a generator
of the epoch; so a batch does not depend on how many workers there are, and a resumed run continues with the
very next one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model_export.cache import ClipCache, Pixels, Unreadable, all_frames
from model_export.datasets import Clip, Listing
from model_export.reading import read_clip
from service.clip.spec import ClipSpec
from service.errors import BlvnetError


@dataclass(frozen=True)
class Draw:
    """Which clip, which of its samplings in time and which crop."""

    index: int
    phase: int = 0
    crop: int = 0


@dataclass(frozen=True)
class Batch:
    """`frames`: for each input uint8 `(N, T, size, size, 3)`; `labels`: int64 `(N,)`.

    `unreadable` names the clips that were drawn and could not be read; they are missing from the batch.
    """

    frames: tuple[Tensor, ...]
    labels: Tensor
    unreadable: tuple[Unreadable, ...] = ()


class ClipSource(Protocol):
    """Where frames come from; `phases` and `crops` say what a `Draw` may ask for."""

    phases: int
    crops: int

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def load(self, draw: Draw, clip: Clip) -> tuple[Pixels, ...]:
        """For each input uint8 `(T, size, size, 3)`; `clip` is the one of the listing that was drawn.

        Raises:
            BlvnetError: the clip cannot be read.
        """
        ...


class CachedClips:
    """Clips of a `ClipCache`; those that could not be read are left out of `listing` beforehand.

    Args:
        cache: the decoded frames.
        rows: the row of the cache for each clip of the listing.
    """

    crops = 1

    def __init__(self, cache: ClipCache, rows: Sequence[int]) -> None:
        self.arrays = cache.arrays
        self.rows = tuple(rows)
        self.phases = int(cache.arrays[0].shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, draw: Draw, clip: Clip) -> tuple[Pixels, ...]:  # noqa: ARG002 - the index says it
        """The cached frames of one phase."""
        return tuple(array[self.rows[draw.index], draw.phase] for array in self.arrays)


class DecodedClips:
    """Clips decoded when they are drawn, at one of `phases` samplings and one of `crops` places.

    Args:
        count: how many clips there are.
        spec: the network's clip; every input gets all T frames.
        phases: samplings in time to choose from.
        crops: places to choose from, 1 (centre) or 3 (along the longer side).
    """

    def __init__(self, count: int, spec: ClipSpec, *, phases: int, crops: int) -> None:
        self.count = count
        self.spec = all_frames(spec)
        self.phases = phases
        self.crops = crops

    def __len__(self) -> int:
        return self.count

    def load(self, draw: Draw, clip: Clip) -> tuple[Pixels, ...]:
        """Decode the frames that one draw of one clip takes."""
        inputs = read_clip(clip, self.spec, clips=self.phases, crops=self.crops, only=draw.phase)
        return tuple(inputs[item.name][draw.crop] for item in self.spec.inputs)


def epoch_draws(source: ClipSource, batch_size: int, generator: torch.Generator) -> list[list[Draw]]:
    """Full batches of one epoch, every clip at most once, in random order."""
    count = len(source)
    if count < batch_size:
        raise BlvnetError(f"{count} training clips are fewer than one batch of {batch_size}")
    order = torch.randperm(count, generator=generator).tolist()
    phases = torch.randint(source.phases, (count,), generator=generator).tolist()
    crops = torch.randint(source.crops, (count,), generator=generator).tolist()
    draws = [Draw(*values) for values in zip(order, phases, crops, strict=True)]
    full = count - count % batch_size
    return [draws[start : start + batch_size] for start in range(0, full, batch_size)]


def plain_draws(source: ClipSource, batch_size: int) -> list[list[Draw]]:
    """Every clip once, in order, at its middle sampling and crop."""
    middle = [Draw(index, source.phases // 2, source.crops // 2) for index in range(len(source))]
    return [middle[start : start + batch_size] for start in range(0, len(middle), batch_size)]


def load_batches(
    source: ClipSource, listing: Listing, draws: Sequence[Sequence[Draw]], *, workers: int, seed: int = 0
) -> Iterator[Batch]:
    """Load `draws`, batch by batch, in `workers` processes (0: in this one)."""
    # Workers are told with each draw which clip it is: a list of 800,000 would be copied to each of them.
    keys = [[(draw, listing.clips[draw.index]) for draw in batch] for batch in draws]
    loader = DataLoader(
        _Drawn(source),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator().manual_seed(seed),  # or it draws from the global one, and resume differs
        worker_init_fn=_leave_interrupts_to_the_parent,
        multiprocessing_context="forkserver" if workers else None,
    )
    yield from loader


def _leave_interrupts_to_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the training process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Item:
    frames: tuple[Pixels, ...]
    label: int


class _Drawn(Dataset["_Item | Unreadable"]):
    """A data set whose keys are draws with their clips."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __getitem__(self, key: tuple[Draw, Clip]) -> _Item | Unreadable:
        draw, clip = key
        try:
            return _Item(self.source.load(draw, clip), clip.label)
        except (BlvnetError, OSError) as exc:
            return Unreadable(clip.path, f"{type(exc).__name__}: {exc}")


def _collate(items: Sequence[_Item | Unreadable]) -> Batch:
    read = [item for item in items if isinstance(item, _Item)]
    frames = tuple(torch.from_numpy(np.stack(views)) for views in zip(*(i.frames for i in read), strict=True))
    labels = torch.tensor([item.label for item in read], dtype=torch.int64)
    return Batch(frames, labels, tuple(item for item in items if isinstance(item, Unreadable)))

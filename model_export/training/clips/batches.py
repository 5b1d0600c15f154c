"""Batches of clips, from a cache of decoded frames, or decoded when they are drawn.

Everything random about loading (order, temporal offset and crop, or the seed of both) is drawn before
anything is loaded, from a generator of the epoch. So a batch does not depend on the number of workers, and a
resumed run continues with the next batch.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model_export.datasets import Example, Listing
from model_export.datasets.reading import Unreadable, read_views
from model_export.training.clips.frame_cache import FrameCache, Pixels, all_frames, processes_with
from model_export.training.clips.random_views import RandomViewPlan
from model_export.training.config import CropMode, Offsets
from service.clip.spec import ClipSpec
from service.errors import BlvnetError


@dataclass(frozen=True)
class Draw:
    """One clip of an example.

    Attributes:
        index: index of the example.
        phase: number of the temporal offset, among those of the source.
        crop: number of the crop, among those of the source.
        seed: seed of all other random choices.
    """

    index: int
    phase: int = 0
    crop: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """A batch of N clips.

    Attributes:
        frames: for each input uint8 `(N, T, size, size, 3)`.
        labels: int64 `(N,)`; or `(N, C)` of zeros and ones for videos with several labels.
        rows: int64 `(N,)`, the positions of the clips among the draws of the batch.
        unreadable: examples that were drawn and could not be read; they are not in the batch.
    """

    frames: tuple[Tensor, ...]
    labels: Tensor
    rows: Tensor
    unreadable: tuple[Unreadable, ...] = ()

    def pin_memory(self) -> Batch:
        """Copy the pixels to pinned memory, from which a GPU reads while it computes."""
        return replace(self, frames=tuple(part.pin_memory() for part in self.frames))

    def to(self, device: torch.device) -> Batch:
        """Copy pixels and labels to a device."""
        frames = tuple(part.to(device, non_blocking=True) for part in self.frames)
        return replace(self, frames=frames, labels=self.labels.to(device))


class ClipSource(Protocol):
    """Loads the clips of a split; a `Draw` may have any of `phases` offsets and `crops` crops.

    `together` consecutive examples share a batch and a phase. It is 1, except for generated clips that differ
    only in the order of their frames: in one batch, everything that they share cancels in the gradient.
    """

    phases: int
    crops: int
    together: int

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        """Load a clip: for each input uint8 `(T, size, size, 3)`.

        Raises:
            BlvnetError: the example cannot be read.
        """
        ...


class CachedClips:
    """Clips from a `FrameCache`.

    Args:
        cache: the decoded frames.
        rows: the row of the cache for each example of the listing.
    """

    crops = 1
    together = 1

    def __init__(self, cache: FrameCache, rows: Sequence[int]) -> None:
        self.arrays = cache.arrays
        self.rows = tuple(rows)
        self.phases = int(cache.arrays[0].shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:  # noqa: ARG002 - the index says it
        """Return the cached frames of one phase."""
        return tuple(array[self.rows[draw.index], draw.phase] for array in self.arrays)


class DecodedClips:
    """Clips decoded when they are drawn.

    Args:
        count: number of examples.
        spec: the network's clip; every input gets all T frames.
        phases: temporal offsets to choose from.
        crops: crops to choose from, 1 (centre) or 3 (along the longer side).
        offsets: any other than `PHASES` replaces the phases.
        crop: any other than `FIXED` replaces the crops.
    """

    together = 1

    def __init__(
        self,
        count: int,
        spec: ClipSpec,
        *,
        phases: int,
        crops: int,
        offsets: Offsets = Offsets.PHASES,
        crop: CropMode = CropMode.FIXED,
    ) -> None:
        self.count = count
        self.spec = all_frames(spec)
        self.phases = phases
        self.crops = crops if crop is CropMode.FIXED else 1
        self.offsets = offsets
        self.crop = crop

    def __len__(self) -> int:
        return self.count

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        """Decode the frames of one draw."""
        plan = RandomViewPlan(self.phases, self.crops, draw.phase, self.offsets, self.crop, draw.seed)
        inputs = read_views(example, self.spec, plan=plan)
        return tuple(inputs[item.name][draw.crop] for item in self.spec.inputs)


@dataclass(frozen=True)
class SplitData:
    """A split to train or validate on: its listing, and the source of its clips, index by index."""

    listing: Listing
    source: ClipSource


def epoch_draws(source: ClipSource, batch_size: int, generator: torch.Generator) -> list[list[Draw]]:
    """Draw the full batches of one epoch: every example at most once, in random order."""
    count, together = len(source), source.together
    blocks = torch.randperm(-(-count // together), generator=generator).tolist()
    block_phases = torch.randint(source.phases, (len(blocks),), generator=generator).tolist()
    members = [range(block * together, min((block + 1) * together, count)) for block in blocks]
    order = [index for block in members for index in block]
    phases = [phase for phase, block in zip(block_phases, members, strict=True) for _ in block]
    crops = torch.randint(source.crops, (count,), generator=generator).tolist()
    seeds = torch.randint(torch.iinfo(torch.int64).max, (count,), generator=generator).tolist()
    draws = [Draw(*values) for values in zip(order, phases, crops, seeds, strict=True)]
    full = count - count % batch_size
    return [draws[start : start + batch_size] for start in range(0, full, batch_size)]


def plain_draws(source: ClipSource, batch_size: int) -> list[list[Draw]]:
    """Draw every example once, in order, at its middle phase and crop."""
    middle = [Draw(index, source.phases // 2, source.crops // 2) for index in range(len(source))]
    return [middle[start : start + batch_size] for start in range(0, len(middle), batch_size)]


class BatchLoader:
    """Loads batches of a split in worker processes, which run until the loader is discarded.

    Args:
        data: the split.
        workers: processes that decode; none are started for cached clips, or with 0.
        pinned: whether batches are in pinned memory, for a GPU.

    Attributes:
        source: source of the clips.
        waited_s: seconds that callers have waited for batches.
    """

    def __init__(self, data: SplitData, *, workers: int, pinned: bool = False) -> None:
        self.waited_s = 0.0
        self.source = data.source
        self._examples = data.listing.examples
        self._batches: list[list[tuple[Draw, Example]]] = []
        workers = 0 if isinstance(data.source, CachedClips) else workers
        self._loader = DataLoader(
            _ClipDataset(data.source, len(data.listing.labels) if data.listing.multi_label else None),
            batch_sampler=self._batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            collate_fn=_collate,
            # Without its own generator it draws from the global one, and a resumed run differs.
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=_prepare_worker,
            multiprocessing_context=processes_with(__name__) if workers else None,
        )

    def load(self, draws: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        """Load a batch for each of `draws`, in order."""
        # A worker gets the example with each draw: a listing of 800,000 would be copied into every worker.
        self._batches[:] = [[(draw, self._examples[draw.index]) for draw in batch] for batch in draws]
        batches = iter(self._loader)
        for _ in draws:
            start = time.monotonic()
            try:
                batch = next(batches)
            except RuntimeError as exc:
                if "DataLoader worker" not in str(exc):
                    raise
                raise BlvnetError(
                    "a decoding process ended, perhaps for memory or because /dev/shm is full: use fewer "
                    "--workers, 0 for none, a smaller --batch-size, or a container with a larger --shm-size"
                ) from exc
            self.waited_s += time.monotonic() - start
            yield batch


def _prepare_worker(_worker: int) -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the training process; exit with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By default a batch that cannot be sent because /dev/shm is full is dropped, and waited for forever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    threading.Thread(target=_end_with_training_process, daemon=True).start()


def _end_worker(_error: Exception, _batch: object) -> None:
    os._exit(1)


def _end_with_training_process() -> None:
    """Exit when the training process has been killed.

    torch watches the parent process for that, but here it is the fork server, which runs as long as its
    workers.
    """
    training_process = multiprocessing.parent_process()
    assert training_process is not None
    training_process.join()
    os._exit(1)


@dataclass(frozen=True)
class _LabelledClip:
    frames: tuple[Pixels, ...]
    labels: Tensor  # int64, its label or (C,) of zeros and ones


class _ClipDataset(Dataset["_LabelledClip | Unreadable"]):
    """A map-style data set whose keys are draws with their examples; `classes` is C with several labels."""

    def __init__(self, source: ClipSource, classes: int | None) -> None:
        self.source = source
        self.classes = classes

    def __getitem__(self, key: tuple[Draw, Example]) -> _LabelledClip | Unreadable:
        draw, example = key
        try:
            return _LabelledClip(self.source.load(draw, example), self._labels(example))
        except (BlvnetError, OSError) as exc:
            return Unreadable(example.path, f"{type(exc).__name__}: {exc}")

    def _labels(self, example: Example) -> Tensor:
        if self.classes is None:
            return torch.tensor(example.label)
        labels = torch.zeros(self.classes, dtype=torch.int64)
        labels[list(example.labels)] = 1
        return labels


def _collate(items: Sequence[_LabelledClip | Unreadable]) -> Batch:
    clips = {row: item for row, item in enumerate(items) if isinstance(item, _LabelledClip)}
    views = zip(*(clip.frames for clip in clips.values()), strict=True)
    labels = [clip.labels for clip in clips.values()]
    return Batch(
        frames=tuple(torch.from_numpy(np.stack(view)) for view in views),
        labels=torch.stack(labels) if labels else torch.empty(0, dtype=torch.int64),
        rows=torch.tensor(list(clips), dtype=torch.int64),
        unreadable=tuple(item for item in items if isinstance(item, Unreadable)),
    )

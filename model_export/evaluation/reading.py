"""Views of many examples, decoded ahead in threads, in batches that mix examples; memory is bounded.

An example with many large views is read clip by clip. The larger the examples, the fewer are read ahead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_export.datasets import Example
from model_export.datasets.reading import Inputs, Unreadable, read_views
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

PART_BYTES = 256_000_000  # an example with larger views is read clip by clip
AHEAD_BYTES = 512_000_000  # size of the parts that are read ahead


@dataclass(frozen=True)
class Part:
    """Views of one example: all views, or the views of one of its clips.

    Attributes:
        index: index of the example.
        first: number of the first view among those of the example.
        inputs: input name -> uint8 `(V, T_branch, size, size, 3)`, or the reason why they could not be read.
        last: whether no further part of the example follows.
    """

    index: int
    first: int
    inputs: Inputs | Unreadable
    last: bool


@dataclass(frozen=True)
class ViewBatch:
    """Views of several examples, to run at once.

    Attributes:
        inputs: input name -> uint8 `(B, T_branch, size, size, 3)`.
        examples: int64 `(B,)`, indices of the examples that the views belong to.
        views: int64 `(B,)`, their numbers among the views of the example.
    """

    inputs: Inputs
    examples: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]


def read_parts(
    examples: Sequence[Example], spec: ClipSpec, *, clips: int, crops: int, jobs: int
) -> Iterator[Part]:
    """Read examples in order, a few ahead in threads: decoding mostly releases the interpreter lock."""
    clip_bytes = crops * sum(math.prod(item.shape(spec.frames)) for item in spec.inputs)
    by_clip = clips > 1 and clips * clip_bytes > PART_BYTES
    ahead = max(1, min(2 * jobs, AHEAD_BYTES // (clip_bytes if by_clip else clips * clip_bytes)))

    def read(example: Example, only: int | None) -> Inputs | Unreadable:
        try:
            return read_views(example, spec, clips=clips, crops=crops, only=only)
        except (BlvnetError, OSError) as exc:
            return Unreadable(example.path, f"{type(exc).__name__}: {exc}")

    pending: deque[tuple[int, int, bool, Future[Inputs | Unreadable]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for index, example in enumerate(examples):
            for clip in range(clips) if by_clip else (None,):
                last = clip in (None, clips - 1)
                pending.append((index, crops * (clip or 0), last, pool.submit(read, example, clip)))
                if len(pending) > ahead:
                    index_, first, last_, future = pending.popleft()
                    yield Part(index_, first, future.result(), last_)
        for index_, first, last_, future in pending:
            yield Part(index_, first, future.result(), last_)


def batched(parts: Iterable[Part], size: int) -> Iterator[ViewBatch]:
    """Batches of `size` views, and a last one with the rest; parts that could not be read are skipped."""
    waiting: list[ViewBatch] = []
    count = 0
    for part in parts:
        if isinstance(part.inputs, Unreadable):
            continue
        views = len(next(iter(part.inputs.values())))
        start = 0
        while start < views:
            stop = min(views, start + size - count)
            numbers = np.arange(part.first + start, part.first + stop)
            inputs = {name: array[start:stop] for name, array in part.inputs.items()}
            waiting.append(ViewBatch(inputs, np.full(stop - start, part.index), numbers))
            count += stop - start
            start = stop
            if count == size:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(batches: Sequence[ViewBatch]) -> ViewBatch:
    inputs = {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return ViewBatch(
        inputs,
        np.concatenate([batch.examples for batch in batches]),
        np.concatenate([batch.views for batch in batches]),
    )

"""Answers for clips that were classified before, and one computation for identical clips in progress.

A key is the digest of the file, the model's version and digest, and every parameter of the query. So an
answer is never returned for another file, another model, or other parameters, and needs no expiry.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import StrEnum
from typing import BinaryIO

from service.errors import NotAVideo, OverLimit, Undecodable
from service.http.schemas.classify import ClassifyAnswer
from service.http.schemas.common import TimingMs
from service.packages.manifest import Manifest
from service.pipeline.classification import Query, Timings

READ_BYTES = 1_000_000
# Size of an entry's digest and bookkeeping, in addition to its JSON.
ENTRY_BYTES = 500
# Problems of the clip itself, which every request with this clip would get.
ABOUT_THE_CLIP = (NotAVideo, Undecodable, OverLimit)


class CacheResult(StrEnum):
    """How a request was answered. A closed set, because it is a label of a metric."""

    HIT = "hit"  # from the cache
    SHARED = "shared"  # by the computation of another request
    MISS = "miss"  # by its own computation


class AnswerCache:
    """Least recently used answers, up to `max_bytes` of JSON.

    Attributes:
        size_bytes: Size of the entries.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._in_progress: dict[str, asyncio.Future[bytes]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get_or_compute(
        self, key: str, compute: Callable[[], Awaitable[ClassifyAnswer]]
    ) -> tuple[ClassifyAnswer, CacheResult]:
        """Return a stored answer, wait for a request that computes the same one, or compute it.

        If that other request fails for a reason that only concerns it, such as its deadline or a client that
        disconnects, one of the waiting requests computes the answer.

        Raises:
            RequestError: see `compute`.
        """
        while True:
            if (stored := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
                return _without_timing(stored), CacheResult.HIT
            if (other := self._in_progress.get(key)) is None:
                break
            await asyncio.wait([other])
            if other.cancelled():
                continue
            return _without_timing(other.result()), CacheResult.SHARED
        result = self._in_progress[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await compute()
            document = answer.model_dump_json().encode()
            result.set_result(document)
            self._store(key, document)
        except ABOUT_THE_CLIP as exc:
            result.set_exception(exc)
            result.exception()  # marks it as retrieved; otherwise asyncio warns if no request waits
            raise
        finally:
            result.cancel()
            del self._in_progress[key]
        return answer, CacheResult.MISS

    def _store(self, key: str, document: bytes) -> None:
        size_bytes = len(document) + ENTRY_BYTES
        if size_bytes > self._max_bytes:
            return
        self._entries[key] = document
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= len(oldest) + ENTRY_BYTES


async def cache_key(video: bytes | BinaryIO, manifest: Manifest, query: Query) -> str:
    """Return the key of a classification."""
    digest = await asyncio.to_thread(_digest, video)
    return f"{digest} {manifest.name}/{manifest.version} {manifest.sha256} {replace(query, model=None)}"


def _digest(video: bytes | BinaryIO) -> str:
    if isinstance(video, bytes):
        return hashlib.sha256(video).hexdigest()
    video.seek(0)
    digest = hashlib.sha256()
    while piece := video.read(READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _without_timing(document: bytes) -> ClassifyAnswer:
    answer = ClassifyAnswer.model_validate_json(document)
    return answer.model_copy(update={"cached": True, "timing_ms": TimingMs.of(Timings(0.0, 0.0, 0.0))})

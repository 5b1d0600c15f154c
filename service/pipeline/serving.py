"""One version of a model while it serves: its graph, its batcher, and the requests that hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.manifest import Manifest
from service.packages import Model
from service.pipeline.self_test import WatchedBatcher
from service.runtime.memory import return_freed_memory


class Serving:
    """A loaded version and how many requests are on it.

    A request holds the version from its admission to its answer: it is decoded for this network's inputs and
    run on this session, whatever has taken the version's place meanwhile.
    """

    def __init__(self, model: Model, batcher: WatchedBatcher) -> None:
        self.model = model
        self.batcher = batcher
        self._holders = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def manifest(self) -> Manifest:
        """What the package says of itself."""
        return self.model.manifest

    @property
    def key(self) -> tuple[str, int]:
        """Name and version."""
        return self.manifest.name, self.manifest.version

    def __str__(self) -> str:
        return f"{self.manifest.name}/{self.manifest.version}"

    @contextmanager
    def held(self) -> Iterator[Serving]:
        """Keep it loaded for one request."""
        self._holders += 1
        self._free.clear()
        try:
            yield self
        finally:
            self._holders -= 1
            if not self._holders:
                self._free.set()

    async def free(self) -> None:
        """Wait until no request holds it."""
        await self._free.wait()

    def abandon(self) -> None:
        """Let nobody wait any longer for those that hold it; their requests will fail."""
        self._free.set()

    def unload(self) -> None:
        """Give its memory back; its batcher has to be closed. Takes its time, so in a thread."""
        self.model.opened.close()
        return_freed_memory()

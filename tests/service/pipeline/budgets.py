"""A memory budget that records what is reserved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.pipeline.limits.memory_budget import MemoryBudget, Reservation


class RecordingBudget(MemoryBudget):
    """A budget without a limit in practice, which keeps the sizes that were reserved."""

    def __init__(self) -> None:
        super().__init__(2**40)
        self.sizes: list[int] = []

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[Reservation]:
        self.sizes.append(size_bytes)
        async with super().reserve(size_bytes) as reservation:
            yield reservation

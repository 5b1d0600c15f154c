"""The time limit of a request."""

from __future__ import annotations

import asyncio
from types import TracebackType

from service.errors import DeadlineExceeded


class Deadline:
    """Ends a block with `DeadlineExceeded`, at a time of the event loop's clock.

    Args:
        timeout_s: the time limit.
        elapsed_s: the part of it that has already passed.

    Attributes:
        limit_s: The time limit.
    """

    def __init__(self, timeout_s: float, elapsed_s: float = 0.0) -> None:
        self._at = asyncio.get_running_loop().time() + timeout_s - elapsed_s
        self.limit_s = self._phase_limit_s = timeout_s
        self._timeout = asyncio.timeout_at(self._at)

    def begin_phase(self, limit_s: float) -> None:
        """End the block in `limit_s` seconds, unless the whole limit is reached sooner or the phase ends."""
        at = asyncio.get_running_loop().time() + limit_s
        if at < self._at:
            self._phase_limit_s = limit_s
            self._timeout.reschedule(at)

    def end_phase(self) -> None:
        """Return to the limit of the whole block."""
        self._phase_limit_s = self.limit_s
        self._timeout.reschedule(self._at)

    async def __aenter__(self) -> Deadline:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(exc_type, exc, traceback)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The request was not answered within {self._phase_limit_s:g} s."
            ) from None

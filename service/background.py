"""Work that does not end when the request that starts it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


def start_background(coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Run a coroutine as a task with an empty context.

    A task normally inherits the context of its creator. The context of a request holds the request id, which
    would appear in every later log line of the task. The caller keeps a reference to the task.
    """
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread; a cancellation is raised only after the function has ended.

    A thread cannot be stopped: with `asyncio.to_thread`, the caller cleans up while the function still works.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:  # another one; the first is raised below
                continue
        if not call.cancelled() and (error := call.exception()) is not None:
            logger.warning("a cancelled call failed: %r", error)
        raise

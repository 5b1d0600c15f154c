"""Tasks that outlive the request that starts them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start_background(coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Run a coroutine as a task with an empty context.

    A task normally inherits the context of its creator. The context of a request holds the request id, which
    would appear in every later log line of the task. The caller keeps a reference to the task.
    """
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())

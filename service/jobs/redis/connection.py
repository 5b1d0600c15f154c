"""The Redis connection of the jobs: commands, scripts, and files as lists of pieces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import IO, Any, BinaryIO

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError

from service.background import in_thread
from service.errors import JobsUnavailable, StorageFull
from service.jobs.store import COPY_BYTES

PREFIX = "blvnet-jobs:"
# Callers would not wait longer for Redis.
TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
RETRY_UNAVAILABLE_S = 5.0
RETRY_FULL_S = 60.0
# Data that belongs to no job, because the process that wrote it ended, is deleted after this time.
ABANDONED_S = 3600

logger = logging.getLogger(__name__)


class RedisConnection:
    """One Redis database.

    Args:
        url: its address, `redis://HOST:PORT/DATABASE`. Nothing is sent before the first call.
    """

    def __init__(self, url: str) -> None:
        # No automatic retries: a repeated command might append a piece of a video twice.
        self.redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._checked = False

    async def script(self, script: str, **arguments: Any) -> Any:
        """Run a script of `service.jobs.redis.scripts`."""
        with guarded():
            return await self.command("EVAL", script, 1, PREFIX, json.dumps(arguments))

    async def command(self, *arguments: Any) -> Any:
        """Run one command; raises the errors of redis-py."""
        return await self.redis.execute_command(*arguments)  # type: ignore[no-untyped-call]

    async def upload(self, key: str, content: bytes | BinaryIO) -> tuple[int, str]:
        """Replace a list with the pieces of a file; return the file's size and SHA-256. The list expires.

        Raises:
            StorageFull: the memory of Redis is full.
        """
        digest, size_bytes = hashlib.sha256(), 0
        with guarded():
            await self.command("UNLINK", key)
            async for piece in _pieces(content):
                await in_thread(digest.update, piece)
                size_bytes += len(piece)
                # In one transaction: a process that ends in between would leave a list that never expires.
                async with self.redis.pipeline(transaction=True) as both:
                    both.rpush(key, piece)
                    both.expire(key, ABANDONED_S)
                    await both.execute()
        return size_bytes, digest.hexdigest()

    async def download(self, key: str, file: IO[bytes]) -> int:
        """Write the pieces of a list to a file; return their number, 0 if the list is deleted meanwhile."""
        with guarded():
            pieces: int = await self.command("LLEN", key)
        for number in range(pieces):
            with guarded():
                piece = await self.command("LINDEX", key, number)
            if piece is None:
                return 0
            await in_thread(write_through, file, piece)
        file.seek(0)
        return pieces

    @asynccontextmanager
    async def deleted_on(self, key: str, *errors: type[BaseException]) -> AsyncIterator[None]:
        """Delete a list if the block raises one of these errors; it would use memory until it expires."""
        try:
            yield
        except errors:
            with suppress(JobsUnavailable), guarded():
                await self.command("UNLINK", key)
            raise

    async def check_configuration(self) -> None:
        """Warn once about Redis settings that would lose jobs."""
        if self._checked:
            return
        memory = await self.command("INFO", "memory")
        persistence = await self.command("INFO", "persistence")
        if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
            logger.warning("Redis deletes jobs when its memory is full; set maxmemory-policy noeviction")
        if not persistence.get("aof_enabled"):
            logger.warning("Redis forgets jobs when it restarts; set appendonly yes")
        self._checked = True


@contextmanager
def guarded() -> Iterator[None]:
    """Translate errors of Redis to errors of jobs, and re-raise a cancellation that redis-py has dropped.

    redis-py drops a cancellation that arrives while it closes a broken connection. On Python 3.11, because of
    `wait_for`, it also drops one that arrives when a command has just been sent.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except (RedisError, OSError) as exc:
        if task.cancelling() > before:
            raise asyncio.CancelledError from exc
        if isinstance(exc, OutOfMemoryError):
            raise StorageFull("The memory for jobs is full.", RETRY_FULL_S) from exc
        raise JobsUnavailable("The jobs cannot be reached at the moment.", RETRY_UNAVAILABLE_S) from exc
    if task.cancelling() > before:
        raise asyncio.CancelledError


def write_through(file: IO[bytes], data: bytes) -> None:
    """Append to a temporary file; raise `StorageFull` if the disk is full."""
    try:
        file.write(data)
        file.flush()  # otherwise a full disk would only raise in a later operation
    except OSError as exc:
        raise StorageFull("The disk for temporary files is full.", RETRY_FULL_S) from exc


async def _pieces(content: bytes | BinaryIO) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        for start in range(0, len(content), COPY_BYTES):
            yield content[start : start + COPY_BYTES]
        return
    content.seek(0)
    while piece := await in_thread(content.read, COPY_BYTES):
        yield piece

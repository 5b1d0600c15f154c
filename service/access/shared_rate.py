"""Requests per minute of each caller, counted in Redis for all replicas of a service."""

from __future__ import annotations

import logging
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

from service.access.keys import RequestRate

NAMESPACE = "blvnet-key"
# A request must not wait longer for Redis than it usually takes to answer it.
TIMEOUT_S = 0.5

logger = logging.getLogger(__name__)


class SharedRate:
    """A moving window of a minute in Redis.

    While Redis does not answer, `fallback` counts, so that requests are neither refused nor unlimited.

    Args:
        url: address of Redis, `redis://HOST:PORT/DATABASE`.
        per_minute: maximum requests within a minute for each caller.
        fallback: counts the requests of this replica.
    """

    def __init__(self, url: str, per_minute: int, fallback: RequestRate) -> None:
        self._item = RateLimitItemPerMinute(per_minute, namespace=NAMESPACE)
        self._storage = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            wrap_exceptions=False,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._window = MovingWindowRateLimiter(self._storage)
        self._fallback = fallback
        self._available = True

    async def take(self, caller: str) -> float | None:
        """Count one request; return the seconds to wait instead if the limit is reached."""
        try:
            accepted = await self._window.hit(self._item, caller)
            stats = None if accepted else await self._window.get_window_stats(self._item, caller)
        except (RedisError, OSError) as exc:
            if self._available:
                logger.error("Redis does not answer, so each replica counts by itself: %r", exc)
            self._available = False
            return await self._fallback.take(caller)
        if not self._available:
            logger.info("Redis answers again and counts for all replicas")
            self._available = True
        return None if stats is None else max(0.0, stats.reset_time - time.time())

    async def close(self) -> None:
        """Close the connections."""
        assert isinstance(self._storage.bridge, RedispyBridge)
        await self._storage.bridge.storage.aclose()

"""API keys with their request limits, and the admin key.

A key is configured in plain text or as `sha256:HEX`, so that the key itself need not be stored. Limits are
counted in this process; `service.access.shared_rate` counts requests per minute for several replicas.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from pydantic import SecretStr

from service.errors import RateLimited

HASHED = "sha256:"
# 48 bits of the digest distinguish the keys of a service and do not help to guess a key.
CALLER_DIGITS = 12
RETRY_CONCURRENT_S = 1.0
MINUTE_S = 60.0


class RequestRate(Protocol):
    """Counts the requests of each caller within a minute."""

    async def take(self, caller: str) -> float | None:
        """Count one request; return the seconds to wait instead if the limit is reached."""

    async def close(self) -> None:
        """Release connections."""


class LocalRate:
    """A moving window of a minute in this process.

    Args:
        per_minute: maximum requests within a minute for each caller.
        clock: monotonic time in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._accepted_at: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=per_minute))

    async def take(self, caller: str) -> float | None:
        """Count one request; return the seconds to wait instead if the limit is reached."""
        accepted_at = self._accepted_at[caller]  # the last `per_minute` requests
        now = self._clock()
        if len(accepted_at) == self._per_minute and (wait_s := accepted_at[0] + MINUTE_S - now) > 0:
            return wait_s
        accepted_at.append(now)
        return None

    async def close(self) -> None:
        """Do nothing: there are no connections to release."""


class KeyRing:
    """The accepted API keys and the requests made with each.

    A caller is identified by the first digits of the SHA-256 digest of the key, which logs may show.

    Args:
        keys: accepted keys; without any, every request is accepted.
        rate: counts requests per minute; None for no limit.
        at_once: maximum concurrent requests for each key. None: half of the upload slots for each of several
            keys, so that slow uploads with one key cannot lock out the others; no limit for a single key.
        upload_slots: maximum concurrent requests of the service.

    Attributes:
        open: Whether requests need no key.
    """

    def __init__(
        self,
        keys: Iterable[SecretStr],
        rate: RequestRate | None = None,
        at_once: int | None = None,
        *,
        upload_slots: int,
    ) -> None:
        self._rate = rate
        self._at_once = at_once
        self._upload_slots = upload_slots
        self._in_progress = Counter[str]()
        self.replace(keys)

    def replace(self, keys: Iterable[SecretStr]) -> None:
        """Accept these keys from now on. Requests in progress finish, and kept keys keep their counts."""
        self._digests = [_digest(key.get_secret_value()) for key in keys]
        self.open = not self._digests

    def find(self, given: str) -> str | None:
        """Return the caller with the key `given`, or None, in a time that reveals nothing about the keys."""
        digest = hashlib.sha256(given.encode()).digest()
        found = None
        for key in self._digests:  # no early exit, which would reveal the position
            if hmac.compare_digest(digest, key):
                found = key.hex()[:CALLER_DIGITS]
        return found

    @asynccontextmanager
    async def share(self, caller: str | None) -> AsyncIterator[None]:
        """Count one request towards the limits of a caller; None stands for a service without keys.

        Raises:
            RateLimited: a limit is reached.
        """
        if caller is None:
            yield
            return
        at_once = self._at_once
        if at_once is None and len(self._digests) > 1:
            at_once = max(1, self._upload_slots // 2)
        if at_once is not None and self._in_progress[caller] >= at_once:
            raise RateLimited(
                f"Concurrent request limit for this key reached ({at_once}).", RETRY_CONCURRENT_S
            )
        self._in_progress[caller] += 1
        try:
            if self._rate is not None and (wait_s := await self._rate.take(caller)) is not None:
                raise RateLimited("Request limit per minute for this key reached.", wait_s)
            yield
        finally:
            self._in_progress[caller] -= 1
            if not self._in_progress[caller]:
                del self._in_progress[caller]


class AdminKey:
    """The key for changing which models serve; without this key, they cannot be changed."""

    def __init__(self, key: SecretStr | None) -> None:
        self._digest: bytes | None = None
        self.replace(key)

    @property
    def is_set(self) -> bool:
        """Whether a key is configured."""
        return self._digest is not None

    def replace(self, key: SecretStr | None) -> None:
        """Accept this key from now on."""
        self._digest = None if key is None else _digest(key.get_secret_value())

    def matches(self, given: str) -> bool:
        """Whether `given` is the key, in a time that reveals nothing about it."""
        digest = hashlib.sha256(given.encode()).digest()
        return self._digest is not None and hmac.compare_digest(digest, self._digest)


def is_one_of(key: SecretStr, others: Iterable[SecretStr]) -> bool:
    """Return whether a key equals one of `others`; each key may be hashed."""
    return _digest(key.get_secret_value()) in {_digest(other.get_secret_value()) for other in others}


def is_well_formed(key: str) -> bool:
    """Whether a key can be sent in a header, and the hash of a hashed one is a SHA-256 digest."""
    if key.startswith(HASHED):
        digest = key.removeprefix(HASHED)
        return len(digest) == 64 and all(letter in "0123456789abcdefABCDEF" for letter in digest)
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _digest(key: str) -> bytes:
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()

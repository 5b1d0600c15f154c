"""Keys: who may ask for work, and how much of it; and who may change what serves.

A key is set as it is, or as `sha256:HEX`, so that the key itself need not be kept anywhere. Shares are
counted in this process, by a moving window of a minute and by what is under way.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from service.errors import RateLimited

HASHED = "sha256:"
RETRY_AT_ONCE_S = 1.0


class KeyRing:
    """The accepted keys and what each has used of its share.

    Args:
        keys: accepted keys; without any, everybody may ask for anything.
        per_minute: most requests for work in a minute with one key; any number, if None.
        at_once: most of them under way with one key; any number, if None.
    """

    def __init__(self, keys: Iterable[SecretStr], per_minute: int | None, at_once: int | None) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]
        self._rate = None if per_minute is None else _Rate(per_minute)
        self._at_once = at_once
        self._under_way = Counter[int]()

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._digests

    def find(self, given: str) -> int | None:
        """The number of the key that `given` is, in a time that says nothing about any of them.

        Digests have one length, and every key is compared even after one was right.
        """
        digest = hashlib.sha256(given.encode()).digest()
        found = None
        for number, key in enumerate(self._digests):
            if hmac.compare_digest(digest, key):
                found = number
        return found

    @contextmanager
    def share(self, key: int | None) -> Iterator[None]:
        """Do one piece of work with a key; None is a caller of a service without keys.

        Raises:
            RateLimited: the key has used up its share.
        """
        if key is None:
            yield
            return
        if self._at_once is not None and self._under_way[key] >= self._at_once:
            raise RateLimited(
                f"{self._at_once} requests with this key are under way, the limit.", RETRY_AT_ONCE_S
            )
        if self._rate is not None:
            self._rate.count(key)
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1


class _Rate:
    """So many requests a minute for each key. Its library takes a tenth of a second to load: on need."""

    def __init__(self, per_minute: int) -> None:
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._rate = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, key: int) -> None:
        if self._limiter.hit(self._rate, str(key)):
            return
        resets_s = self._limiter.get_window_stats(self._rate, str(key)).reset_time
        raise RateLimited(
            f"{self._rate.amount} requests with this key within a minute, the limit.", resets_s - time.time()
        )


class AdminKey:
    """The key of those who may change what serves; without one nobody may."""

    def __init__(self, key: SecretStr | None) -> None:
        self._digest = None if key is None else _digest(key.get_secret_value())

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._digest is not None

    def matches(self, given: str) -> bool:
        """Whether `given` is the key, in a time that says nothing about it."""
        digest = hashlib.sha256(given.encode()).digest()
        return self._digest is not None and hmac.compare_digest(digest, self._digest)


def is_one_of(key: SecretStr, others: Iterable[SecretStr]) -> bool:
    """Whether a key, as it is or as a digest, is one of some others."""
    return _digest(key.get_secret_value()) in {_digest(other.get_secret_value()) for other in others}


def is_well_formed(key: str) -> bool:
    """Whether a key can be sent in a header, and a hashed one is a digest."""
    if key.startswith(HASHED):
        digest = key.removeprefix(HASHED)
        return len(digest) == 64 and all(letter in "0123456789abcdefABCDEF" for letter in digest)
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _digest(key: str) -> bytes:
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()

"""Retries: which failed requests are sent again, and how long the client waits before each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from blvnet_client.errors import BusyError, ConnectionFailed, TimedOut, UnexpectedAnswer
from blvnet_client.operations import Operation
from blvnet_client.uploads import Upload

# Answers of proxies while the service behind them restarts.
PROXY_STATUSES = frozenset({502, 503})


@dataclass(frozen=True)
class RetryPolicy:
    """Budget for the attempts of one call.

    A request is sent again if the service is busy (429, 503), if a proxy reports that it is unavailable (502,
    503), or if the connection fails or is cut, unless a second request could have another effect or the video
    cannot be read again. The wait is the service's `Retry-After`, but at least an exponentially growing time
    with jitter.

    Attributes:
        budget_s: No attempt begins later than this after the start of the call; 0 for a single attempt.
        first_wait_s: Wait before the second attempt; doubled for each following attempt.
        longest_wait_s: Upper bound of the growing wait; `Retry-After` may be longer.
    """

    budget_s: float = 30.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0

    def retrying(self, operation: Operation[Any], upload: Upload | None) -> Retrying:
        """Return a caller that repeats a function."""
        return Retrying(**self._options(operation, upload))

    def retrying_async(self, operation: Operation[Any], upload: Upload | None) -> AsyncRetrying:
        """Return a caller that repeats a coroutine function."""
        return AsyncRetrying(**self._options(operation, upload))

    def _options(self, operation: Operation[Any], upload: Upload | None) -> dict[str, Any]:
        backoff = wait_exponential_jitter(
            multiplier=self.first_wait_s, max=self.longest_wait_s, jitter=self.first_wait_s / 2
        )

        def wait_s(state: RetryCallState) -> float:
            return max(backoff(state), getattr(_error_of(state), "retry_after_s", None) or 0.0)

        def is_over(state: RetryCallState) -> bool:
            return (state.seconds_since_start or 0.0) + state.upcoming_sleep > self.budget_s

        def is_worth_it(error: BaseException) -> bool:
            harmless = operation.repeatable or isinstance(error, BusyError)
            return is_temporary(error) and harmless and (upload is None or upload.repeatable)

        return {"retry": retry_if_exception(is_worth_it), "wait": wait_s, "stop": is_over, "reraise": True}


def is_temporary(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, UnexpectedAnswer):
        return error.status in PROXY_STATUSES
    if isinstance(error, TimedOut):
        return error.phase == "connect"
    return isinstance(error, BusyError | ConnectionFailed)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()

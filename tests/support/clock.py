"""A clock that tests set."""

from __future__ import annotations


class Clock:
    """Replaces a clock of `time`; `now_s` is its time in seconds."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

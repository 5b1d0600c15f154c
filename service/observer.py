"""What the core tells of itself while it works; by default nobody listens, metrics are one that does."""

from __future__ import annotations

from enum import StrEnum


class RestartReason(StrEnum):
    """Why a decode worker was replaced; a closed set, so that it can label a metric."""

    CRASHED = "crashed"  # it died by itself
    KILLED = "killed"  # by SIGKILL: the kernel, short of memory, or an operator
    TIMEOUT = "timeout"  # a clip took longer than it may
    CANCELLED = "cancelled"  # the caller had gone in mid-clip
    ERROR = "error"  # something came up that no worker should raise
    RECYCLED = "recycled"  # it had served its number of clips


class Observer:
    """Does nothing; override what is of interest. Called on the event loop: neither block nor raise in it."""

    def batch_size(self, model: str, rows: int) -> None:
        """A batch of `rows` views is about to run."""

    def worker_restart(self, reason: RestartReason) -> None:
        """A decode worker is replaced."""

    def model_watched(self, model: str) -> None:
        """A model serves, and is tested, from now on."""

    def self_test_failure(self, model: str) -> None:
        """An inference of a model has failed, or one is stuck: that is told every second."""

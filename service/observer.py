"""Hooks for pipeline events. The metrics implement them; the defaults do nothing."""

from __future__ import annotations

from enum import StrEnum


class RestartReason(StrEnum):
    """Why a decode worker was replaced. A closed set, because it is a label of a metric."""

    CRASHED = "crashed"  # it ended by itself
    KILLED = "killed"  # by SIGKILL, sent by the kernel for lack of memory or by an operator
    TIMEOUT = "timeout"  # it did not answer in time
    CPU_LIMIT = "cpu_limit"  # a video used up its processor time
    CANCELLED = "cancelled"  # the caller left while it decoded
    ERROR = "error"  # an unexpected exception
    RECYCLED = "recycled"  # it had decoded its maximum number of videos


class TrainingEnd(StrEnum):
    """How a training of a taught model ended. A closed set, because it is a label of a metric."""

    TRAINED = "trained"
    REFUSED = "refused"  # there are too few examples
    CANCELLED = "cancelled"  # the caller left, or the service stopped
    FAILED = "failed"  # its process ended, or the package could not be written


class Observer:
    """Override the methods of interest. They run on the event loop and must neither block nor raise."""

    def batch_size(self, model: str, rows: int) -> None:
        """A batch of `rows` views is about to run."""

    def taught_views(self, model: str, views: int) -> None:
        """A request of a taught model submits `views` views to the batches of its base."""

    def taught_examples(self, model: str, examples: int | None) -> None:
        """A taught model now has this many examples; None: it was deleted."""

    def training(self, result: TrainingEnd, seconds: float) -> None:
        """A training of a taught model has ended after `seconds`."""

    def worker_restart(self, reason: RestartReason) -> None:
        """A decode worker is replaced."""

    def model_watched(self, model: str) -> None:
        """A model starts serving, with self-tests."""

    def self_test_failure(self, model: str) -> None:
        """An inference failed, or has been stuck for another second."""

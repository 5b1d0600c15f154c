"""Inference slots, shared by the batchers of all models in rounds.

A run of one thread takes one slot; a run with all threads takes all of them.
"""

from __future__ import annotations

from typing import Protocol


class SlotUser(Protocol):
    """The part of a batcher's interface that the slots use."""

    @property
    def clips(self) -> int:
        """Number of its rows that are expected, waiting or running."""
        ...

    def wake(self) -> None:
        """Try again: slots may be free now."""
        ...


class Slots:
    """A fixed number of slots, granted in the order in which the users asked.

    A user that was refused keeps its place in the queue. A user that was granted slots asks again behind the
    waiting ones, so models take turns run by run: a request with many rows delays other models by one run.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._users: list[SlotUser] = []
        self._queue: dict[SlotUser, None] = {}  # in the order in which they asked

    @property
    def clips(self) -> int:
        """Number of rows of all users: the demand for the cores."""
        return sum(user.clips for user in self._users)

    def register(self, user: SlotUser) -> None:
        """Count the user's rows in `clips`."""
        self._users.append(user)

    def unregister(self, user: SlotUser) -> None:
        """Forget the user; slots that it holds must still be released."""
        self._users.remove(user)
        self.withdraw(user)

    def try_acquire(self, user: SlotUser, wanted: int) -> bool:
        """Take `wanted` slots; otherwise queue the user, which is woken when it is worth trying again.

        The first user in the queue blocks the others even if it wants more slots than are free. Otherwise
        runs of one thread would keep a run with all threads waiting forever.
        """
        self._queue.setdefault(user)
        if wanted > self.free or next(iter(self._queue)) is not user:
            return False
        self.free -= wanted
        self.withdraw(user)
        return True

    def release(self, count: int) -> None:
        """Release slots."""
        self.free += count
        self._wake()

    def withdraw(self, user: SlotUser) -> None:
        """Remove the user from the queue; the next one may be able to run."""
        if user in self._queue:
            del self._queue[user]
            self._wake()

    def _wake(self) -> None:
        for user in self._queue:
            user.wake()

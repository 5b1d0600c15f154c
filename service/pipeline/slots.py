"""The cores' share of inference, handed out to the models' batchers: first come, first served.

A run of one thread takes one slot, a run with all threads takes them all.
"""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """A batcher, as seen from here."""

    @property
    def clips(self) -> int:
        """Clips that it has, in whatever stage, and those on their way to it."""
        ...

    def wake(self) -> None:
        """Slots may be free."""
        ...


class Slots:
    """`total` slots for all members together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._members: list[Member] = []
        self._since_s: dict[Member, float] = {}

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self._free

    @property
    def clips(self) -> int:
        """Clips that all members have: what the cores are wanted for."""
        return sum(member.clips for member in self._members)

    def join(self, member: Member) -> None:
        """Take part."""
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """Take part no more; what was taken is still to be given back."""
        self._members.remove(member)
        self.withdraw(member)

    def take(self, member: Member, wanted: int, since_s: float) -> bool:
        """Take `wanted` slots for a clip that waits since `since_s`; whether they were had.

        Where they were not, the member keeps its place, and is woken when it is worth asking again.
        """
        self._since_s[member] = since_s
        if wanted > self._free or min(self._since_s.values()) < since_s:
            return False
        self.withdraw(member)
        self._free -= wanted
        return True

    def give(self, taken: int) -> None:
        """Give slots back."""
        self._free += taken
        self._wake()

    def withdraw(self, member: Member) -> None:
        """A member waits no more."""
        if self._since_s.pop(member, None) is not None:
            self._wake()

    def _wake(self) -> None:
        for waiting in tuple(self._since_s):
            waiting.wake()

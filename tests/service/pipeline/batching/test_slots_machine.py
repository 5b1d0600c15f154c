"""Slots against a simple model: users ask, are cancelled, and give slots back in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.pipeline.batching.slots import Slots

TOTAL = 3
USERS = st.integers(0, 3)


class User:
    """A user that records whether it was woken since its last refusal."""

    def __init__(self) -> None:
        self.clips = 1
        self.wanted: int | None = None
        self.woken = False
        self.held: list[int] = []
        self.passed_by = 0

    def wake(self) -> None:
        self.woken = True


class SlotsMachine(RuleBasedStateMachine):
    """The model: a queue in the order of the refusals."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(TOTAL)
        self.users = [User() for _ in range(4)]
        self.queue: list[User] = []
        for user in self.users:
            self.slots.register(user)

    @rule(number=USERS, wanted=st.integers(1, TOTAL))
    def ask(self, number: int, wanted: int) -> None:
        """A user requests slots, possibly with a new number after a cancellation or growth."""
        user = self.users[number]
        if user not in self.queue:
            self.queue.append(user)
        granted = self.queue[0] is user and wanted <= TOTAL - sum(sum(one.held) for one in self.users)
        user.woken = False
        assert self.slots.try_acquire(user, wanted) is granted
        user.wanted = None if granted else wanted
        if granted:
            self.queue.remove(user)
            user.held.append(wanted)
            for other in self.queue:
                other.passed_by += 1
            user.passed_by = 0

    @rule(number=USERS)
    def cancel(self, number: int) -> None:
        """Cancel the last request of a user."""
        user = self.users[number]
        self.slots.withdraw(user)
        user.wanted = None
        user.passed_by = 0
        if user in self.queue:
            self.queue.remove(user)

    @precondition(lambda self: any(user.held for user in self.users))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A run ends."""
        user = data.draw(st.sampled_from([user for user in self.users if user.held]))
        self.slots.release(user.held.pop())

    @invariant()
    def slots_add_up(self) -> None:
        assert self.slots.free == TOTAL - sum(sum(user.held) for user in self.users) >= 0

    @invariant()
    def the_first_in_the_queue_knows_when_it_can_run(self) -> None:
        if self.queue:
            user = self.queue[0]
            assert user.wanted is not None
            assert user.wanted > self.slots.free or user.woken

    @invariant()
    def nobody_is_passed_by_more_often_than_there_are_users_ahead(self) -> None:
        for user in self.queue:
            assert user.passed_by < len(self.users)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

"""Admission against a simple model: uploads, work and errors of two models in any order."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.errors import Overloaded, Undecodable
from service.pipeline.limits.admission import IDLE_UPLOAD_S, UPLOADS_PER_PLACE, Admission, Ticket

LIMIT = 2
MODELS = st.sampled_from("ab")


class AdmissionMachine(RuleBasedStateMachine):
    """The model: a list of tickets that are receiving, and one of those in progress.

    `waiting` has the receiving tickets that wait for data, in order, and when each wait began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.admission = Admission(LIMIT, clock=lambda: self.now_s)
        self.receiving: list[Ticket] = []
        self.working: list[tuple[Ticket, ExitStack]] = []
        self.waiting: dict[Ticket, tuple[float, ExitStack]] = {}

    @rule(model=MODELS, views=st.integers(1, 10))
    def admit(self, model: str, views: int) -> None:
        idle = next(
            (t for t, (since, _) in self.waiting.items() if since + IDLE_UPLOAD_S <= self.now_s), None
        )
        no_place = len(self.receiving) >= UPLOADS_PER_PLACE * LIMIT
        if len(self.working) >= LIMIT or (no_place and idle is None):
            with pytest.raises(Overloaded):
                self.admission.admit(model, views)
        else:
            self.receiving.append(self.admission.admit(model, views))
            if no_place:
                assert idle not in self.receiving

    @precondition(lambda self: len(self.receiving) > len(self.waiting))
    @rule(data=st.data())
    def wait_for_data(self, data: st.DataObject) -> None:
        """A client pauses; its place may go to another one."""
        ticket = data.draw(st.sampled_from([t for t in self.receiving if t not in self.waiting]))
        stack = ExitStack()
        self.waiting[ticket] = self.now_s, stack
        stack.enter_context(ticket.waiting_for_data(lambda: self.end_wait(ticket, lost=True)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def receive_data(self, data: st.DataObject) -> None:
        self.end_wait(data.draw(st.sampled_from(list(self.waiting))))

    def end_wait(self, ticket: Ticket, *, lost: bool = False) -> None:
        _, stack = self.waiting.pop(ticket, (0.0, ExitStack()))
        stack.close()
        if lost:
            self.receiving.remove(ticket)

    @precondition(lambda self: self.receiving)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        """A client disconnects during its upload; a ticket may be released twice."""
        ticket = data.draw(st.sampled_from(self.receiving))
        self.receiving.remove(ticket)
        ticket.release()
        ticket.release()
        self.end_wait(ticket)

    @precondition(lambda self: self.receiving)
    @rule(data=st.data(), measured=st.booleans())
    def begin(self, data: st.DataObject, measured: bool) -> None:
        ticket = data.draw(st.sampled_from(self.receiving))
        self.end_wait(ticket)
        self.receiving.remove(ticket)
        stack = ExitStack()
        if len(self.working) >= LIMIT:
            with pytest.raises(Overloaded):
                stack.enter_context(ticket.in_progress(measured=measured))
        else:
            stack.enter_context(ticket.in_progress(measured=measured))
            self.working.append((ticket, stack))

    @precondition(lambda self: self.working)
    @rule(data=st.data(), failure=st.sampled_from([None, Undecodable("no"), ZeroDivisionError()]))
    def end(self, data: st.DataObject, failure: Exception | None) -> None:
        """A request is answered, rejected because of its video, or cancelled."""
        index = data.draw(st.integers(0, len(self.working) - 1))
        ticket, stack = self.working.pop(index)
        assert not stack.__exit__(None if failure is None else type(failure), failure, None)
        ticket.release()

    @rule(passes_s=st.floats(0, 10))
    def wait(self, passes_s: float) -> None:
        self.now_s += passes_s

    @invariant()
    def requests_add_up(self) -> None:
        assert self.admission.inflight == len(self.working)

    @invariant()
    def an_idle_service_takes_every_request(self) -> None:
        if not self.working and not self.receiving:
            for model in "ab":
                self.admission.admit(model, 100, timeout_s=0.001).release()

    @invariant()
    def the_rate_is_positive(self) -> None:
        for model in "ab":
            assert self.admission.throughput(model).interval_s >= 0


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

"""Admission control with a clock that the tests set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from service.errors import Overloaded, Undecodable
from service.pipeline.limits.admission import (
    ARRIVAL_S,
    CAUTION,
    IDLE_UPLOAD_S,
    LONGEST_RETRY_S,
    SHORTEST_RETRY_S,
    UPLOADS_PER_PLACE,
    Admission,
    Throughput,
)
from tests.support.clock import Clock


@contextmanager
def admitted(
    admission: Admission, views: int = 1, timeout_s: float = math.inf, model: str = "a"
) -> Iterator[None]:
    """A request that is in progress for the block."""
    with admission.admit(model, views, timeout_s).in_progress():
        yield


def check(admission: Admission, views: int = 1, timeout_s: float = math.inf, model: str = "a") -> None:
    """Raise `Overloaded` if a request would be rejected."""
    admission.admit(model, views, timeout_s).release()


def is_full(admission: Admission) -> bool:
    try:
        check(admission)
    except Overloaded:
        return True
    return False


def retry_after_s(admission: Admission) -> float:
    with pytest.raises(Overloaded) as caught:
        check(admission)
    return caught.value.retry_after_s


def test_requests_beyond_the_limit_are_refused_until_one_ends() -> None:
    admission = Admission(limit=2)
    with admitted(admission):
        with admitted(admission):
            assert is_full(admission)
            with pytest.raises(Overloaded), admitted(admission):
                raise AssertionError("the third was let in")
        with admitted(admission):
            assert admission.inflight == 2
    assert admission.inflight == 0


def test_failed_request_frees_its_place() -> None:
    admission = Admission(limit=1)
    with pytest.raises(ZeroDivisionError), admitted(admission):
        raise ZeroDivisionError
    assert not is_full(admission)


def test_retry_after_is_derived_from_the_rate() -> None:
    clock = Clock()
    admission = Admission(limit=4, clock=clock)
    for _ in range(3):
        clock.now_s += 3600  # the idle night does not affect the rate
        with admitted(admission):
            clock.now_s += 2.5
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admitted(admission))
        with pytest.raises(Overloaded) as caught, admitted(admission):
            raise AssertionError("the fifth was let in")
        assert caught.value.retry_after_s == pytest.approx(4 * 2.5)


@pytest.mark.parametrize(("took_s", "expected_s"), [(0.001, SHORTEST_RETRY_S), (900.0, LONGEST_RETRY_S)])
def test_retry_after_is_bounded(took_s: float, expected_s: float) -> None:
    clock = Clock()
    admission = Admission(limit=1, clock=clock)
    with admitted(admission):
        clock.now_s += took_s
    with admitted(admission):
        assert retry_after_s(admission) == expected_s


def test_rate_adapts_to_a_change() -> None:
    clock = Clock()
    admission = Admission(limit=1, clock=clock)
    for took_s in [20.0, *[2.0] * 60]:
        with admitted(admission):
            clock.now_s += took_s
    with admitted(admission):
        assert retry_after_s(admission) == pytest.approx(2.0, rel=0.05)


def hold(stack: ExitStack, admission: Admission, requests: int, clips: int = 1) -> None:
    """Keep several requests in progress until the stack is closed."""
    for _ in range(requests):
        stack.enter_context(admitted(admission, clips))


def measured(interval_s: float, **options: float) -> Admission:
    """An admission control that has seen one finished view every `interval_s` seconds, with a fixed clock."""
    admission = Admission(limit=1000, clock=Clock(), **options)  # type: ignore[arg-type]
    admission.throughput("a").expect(1 / interval_s)
    return admission


def test_request_that_would_miss_its_deadline_is_refused() -> None:
    admission = measured(0.1)
    with ExitStack() as stack:
        hold(stack, admission, 9)
        needed_s = 10 * 0.1 * CAUTION
        check(admission, timeout_s=needed_s + 0.01)
        with pytest.raises(Overloaded, match=r"9 requests in progress .* before its deadline"):
            check(admission, timeout_s=needed_s - 0.01)


def test_only_request_is_accepted_whatever_its_deadline() -> None:
    admission = measured(10.0, target_s=2.0)
    check(admission, views=30, timeout_s=0.001)


def test_requests_are_accepted_while_their_expected_latency_is_within_the_target() -> None:
    admission = measured(0.1, target_s=2.0)
    with ExitStack() as stack:
        hold(stack, admission, 16)
        check(admission)  # 17 x 0.1 s x 1.15 is less than 2 s
        hold(stack, admission, 1)
        assert is_full(admission)
        with pytest.raises(Overloaded, match="this one would take") as caught:
            check(admission)
        assert caught.value.retry_after_s == pytest.approx(1.7)


def test_each_view_counts() -> None:
    admission = measured(0.1, target_s=2.0)
    with ExitStack() as stack:
        hold(stack, admission, 1, clips=10)
        check(admission, views=7)
        with pytest.raises(Overloaded):
            check(admission, views=8)


def test_minimum_number_of_requests_is_accepted_whatever_the_target() -> None:
    admission = measured(60.0, target_s=2.0, burst=4)
    with ExitStack() as stack:
        hold(stack, admission, 4)
        assert is_full(admission)


def test_failed_requests_do_not_change_the_rate() -> None:
    admission = measured(1.0)
    before = admission.throughput("a").interval_s
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), admitted(admission):
            raise ZeroDivisionError
    assert admission.throughput("a").interval_s == pytest.approx(before)


def test_rejected_clips_count_towards_the_rate() -> None:
    clock = Clock()
    admission = Admission(limit=2, clock=clock)

    def undecodable() -> None:
        clock.now_s += 0.25
        raise Undecodable("no frame")

    for _ in range(100):
        with pytest.raises(Undecodable), admitted(admission):
            undecodable()
    assert admission.throughput("a").interval_s == pytest.approx(0.25)


def test_single_slow_clip_barely_changes_the_rate() -> None:
    throughput = Throughput()
    for _ in range(100):
        throughput.add(0.1, 1)
    throughput.add(0.0, 0)
    assert throughput.interval_s == pytest.approx(0.1)
    throughput.add(1.0, 1)
    assert 0.1 < throughput.interval_s < 0.15


def test_measured_rate_is_not_replaced_by_an_estimate() -> None:
    throughput = Throughput()
    throughput.expect(10)
    assert throughput.interval_s == pytest.approx(0.1)
    throughput.expect(1)
    assert throughput.interval_s == pytest.approx(0.1)


def test_unmeasured_request_takes_a_place_and_does_not_change_the_rate() -> None:
    clock = Clock()
    admission = Admission(limit=2, clock=clock)
    with admitted(admission):
        clock.now_s += 1
    with admission.admit("a").in_progress(measured=False):
        clock.now_s += 3600  # its reader sleeps
        with admitted(admission, timeout_s=2):
            clock.now_s += 1
            assert is_full(admission)
        assert admission.throughput("a").interval_s == pytest.approx(1)
        assert admission.inflight == 1
    assert admission.inflight == 0


def test_uploads_have_a_limit_of_their_own() -> None:
    admission = Admission(limit=2)
    tickets = [admission.admit("a") for _ in range(2 * UPLOADS_PER_PLACE)]
    with pytest.raises(Overloaded, match="uploads"):
        admission.admit("a")
    tickets[0].release()
    tickets[0].release()
    admission.admit("a")
    with pytest.raises(Overloaded, match="uploads"):
        admission.admit("a")


def test_new_upload_replaces_an_idle_one() -> None:
    admission = Admission(limit=1, clock=(clock := Clock()))
    tickets = [admission.admit("a") for _ in range(UPLOADS_PER_PLACE)]
    ended: list[int] = []
    with ExitStack() as stack:
        for number in (1, 0):
            stack.enter_context(tickets[number].waiting_for_data(partial(ended.append, number)))
            clock.now_s += IDLE_UPLOAD_S / 2
        clock.now_s -= 0.01
        with pytest.raises(Overloaded, match="uploads"):
            admission.admit("a")
        clock.now_s += 0.01
        for _ in range(2):  # the first one, and then none until the other one is idle too
            admission.admit("a").release()
        admission.admit("a")
        assert ended == [1]
        with pytest.raises(Overloaded, match="uploads"):
            admission.admit("a")
        clock.now_s += IDLE_UPLOAD_S / 2
        admission.admit("a")
        assert ended == [1, 0]
    clock.now_s += 100
    with pytest.raises(Overloaded, match="uploads"):
        admission.admit("a")


def test_completed_uploads_in_progress_stay_within_the_limit() -> None:
    admission = Admission(limit=2)
    tickets = [admission.admit("a") for _ in range(3)]
    with tickets[0].in_progress():
        with tickets[1].in_progress(), pytest.raises(Overloaded), tickets[2].in_progress():
            raise AssertionError("the third was let in")
        assert admission.inflight == 1
        check(admission)
    assert admission.inflight == 0


def test_simultaneous_requests_are_not_all_admitted() -> None:
    clock = Clock()
    admission = Admission(limit=1000, target_s=1.0, clock=clock)
    admission.throughput("a").expect(10)
    tickets = [admission.admit("a") for _ in range(8)]
    assert is_full(admission)
    clock.now_s += ARRIVAL_S  # their uploads are slow and cause no work yet
    assert not is_full(admission)
    with tickets[0].in_progress():
        check(admission)


def test_load_of_one_model_does_not_reject_requests_of_another() -> None:
    admission = measured(1.0, target_s=2.0)
    admission.throughput("b").expect(10)
    with ExitStack() as stack:
        hold(stack, admission, 1)
        assert is_full(admission)
        check(admission, model="b")
        with admitted(admission, model="b"):
            check(admission, model="b", timeout_s=0.3)
            with pytest.raises(Overloaded):
                check(admission, model="b", timeout_s=0.2)


def test_request_that_grows_is_admitted_again() -> None:
    admission = measured(0.1, target_s=2.0)
    with ExitStack() as stack:
        hold(stack, admission, 10)
        ticket = admission.admit("a", timeout_s=30)
        ticket.require(1, 30)
        ticket.require(7, 30)
        with pytest.raises(Overloaded, match="latency target"):
            ticket.require(8, 30)
        ticket.release()
        with pytest.raises(Overloaded, match="deadline"):
            admission.admit("a", timeout_s=30).require(1, 1.0)


def test_idle_model_accepts_any_number_of_views() -> None:
    ticket = measured(1.0, target_s=2.0).admit("a")
    ticket.require(100, 30)

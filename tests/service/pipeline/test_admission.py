from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.errors import Overloaded, Undecodable
from service.pipeline.admission import CAUTION, LONGEST_RETRY_S, SHORTEST_RETRY_S, Admission, Throughput

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def test_requests_past_the_limit_are_refused_until_one_is_done() -> None:
    admission = Admission(limit=2)
    with admission.admit():
        with admission.admit():
            assert admission.full
            with pytest.raises(Overloaded), admission.admit():
                raise AssertionError("the third was let in")
        with admission.admit():
            assert admission.inflight == 2
    assert admission.inflight == 0


async def test_a_request_that_fails_leaves_as_well() -> None:
    admission = Admission(limit=1)
    with pytest.raises(ZeroDivisionError), admission.admit():
        raise ZeroDivisionError
    assert not admission.full


async def test_the_time_to_come_back_follows_from_the_rate() -> None:
    clock = Clock()
    admission = Admission(limit=4, clock=clock)
    for _ in range(3):
        clock.now_s += 3600  # the night between says nothing of the rate
        with admission.admit():
            clock.now_s += 2.5
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admission.admit())
        with pytest.raises(Overloaded) as caught, admission.admit():
            raise AssertionError("the fifth was let in")
        assert caught.value.retry_after_s == pytest.approx(4 * 2.5)


@pytest.mark.parametrize(("took_s", "expected_s"), [(0.001, SHORTEST_RETRY_S), (900.0, LONGEST_RETRY_S)])
async def test_the_time_to_come_back_is_kept_within_reason(took_s: float, expected_s: float) -> None:
    clock = Clock()
    admission = Admission(limit=1, clock=clock)
    with admission.admit():
        clock.now_s += took_s
    with admission.admit():
        assert admission.retry_after_s() == expected_s


async def test_the_rate_follows_a_change() -> None:
    clock = Clock()
    admission = Admission(limit=1, clock=clock)
    for took_s in [20.0, *[2.0] * 60]:
        with admission.admit():
            clock.now_s += took_s
    with admission.admit():
        assert admission.retry_after_s() == pytest.approx(2.0, rel=0.05)


def hold(stack: ExitStack, admission: Admission, requests: int, clips: int = 1) -> None:
    """Be so many requests in work until the stack ends."""
    for _ in range(requests):
        stack.enter_context(admission.admit(clips))


def measured(interval_s: float, **options: float) -> Admission:
    """An admission that has seen a clip done every `interval_s` seconds; its clock stands still."""
    admission = Admission(limit=1000, clock=Clock(), **options)  # type: ignore[arg-type]
    admission.throughput.expect(1 / interval_s)
    return admission


async def test_a_request_that_would_miss_its_deadline_is_refused() -> None:
    admission, now = measured(0.1), Clock()()
    with ExitStack() as stack:
        hold(stack, admission, 9)
        hurried = now + 10 * 0.1 * CAUTION
        admission.check(deadline=hurried + 0.01)
        with pytest.raises(Overloaded, match="9 requests in work: too long"):
            admission.check(deadline=hurried - 0.01)


async def test_a_request_that_is_alone_may_try_whatever_its_deadline() -> None:
    admission = measured(10.0, target_s=2.0)
    admission.check(clips=30, deadline=Clock()() + 0.001)


async def test_requests_are_accepted_while_they_should_be_answered_within_the_target() -> None:
    admission = measured(0.1, target_s=2.0)
    with ExitStack() as stack:
        hold(stack, admission, 16)
        admission.check()  # 17 x 0.1 s x 1.15 is less than 2 s
        hold(stack, admission, 1)
        assert admission.full
        with pytest.raises(Overloaded, match="another would take") as caught:
            admission.check()
        assert caught.value.retry_after_s == pytest.approx(1.7)


async def test_views_count_as_what_they_are() -> None:
    admission = measured(0.1, target_s=2.0)
    with ExitStack() as stack:
        hold(stack, admission, 1, clips=10)
        admission.check(clips=7)
        with pytest.raises(Overloaded):
            admission.check(clips=8)


async def test_a_few_are_accepted_whatever_the_target() -> None:
    admission = measured(60.0, target_s=2.0, burst=4)
    with ExitStack() as stack:
        hold(stack, admission, 4)
        assert admission.full


async def test_failures_say_nothing_of_the_rate() -> None:
    admission = measured(1.0)
    before = admission.throughput.interval_s
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), admission.admit():
            raise ZeroDivisionError
    assert admission.throughput.interval_s == pytest.approx(before)


async def test_bad_clips_are_work_too() -> None:
    clock = Clock()
    admission = Admission(limit=2, clock=clock)

    def undecodable() -> None:
        clock.now_s += 0.25
        raise Undecodable("no frame")

    for _ in range(100):
        with pytest.raises(Undecodable), admission.admit():
            undecodable()
    assert admission.throughput.interval_s == pytest.approx(0.25)


def test_one_clip_that_takes_long_says_little() -> None:
    throughput = Throughput()
    for _ in range(100):
        throughput.add(0.1, 1)
    throughput.add(0.0, 0)
    assert throughput.interval_s == pytest.approx(0.1)
    throughput.add(1.0, 1)
    assert 0.1 < throughput.interval_s < 0.15


def test_what_was_measured_is_not_replaced_by_an_expectation() -> None:
    throughput = Throughput()
    throughput.expect(10)
    assert throughput.interval_s == pytest.approx(0.1)
    throughput.expect(1)
    assert throughput.interval_s == pytest.approx(0.1)


async def test_idle_comes_when_the_last_request_is_done() -> None:
    admission = Admission(limit=2)
    await admission.idle()
    with admission.admit(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await admission.idle()
    await admission.idle()


async def test_a_long_request_has_a_place_and_says_nothing_of_the_rate() -> None:
    clock = Clock()
    admission = Admission(limit=2, clock=clock)
    with admission.admit():
        clock.now_s += 1
    with admission.admit_long():
        clock.now_s += 3600  # its reader sleeps
        with admission.admit(deadline=clock.now_s + 2):
            clock.now_s += 1
            assert admission.full
        assert admission.throughput.interval_s == pytest.approx(1)
        idle = asyncio.create_task(admission.idle())
        await asyncio.sleep(0)
        assert not idle.done()
    await idle
    assert admission.inflight == 0
    with admission.admit(), admission.admit(), pytest.raises(Overloaded), admission.admit_long():
        raise AssertionError("the third was let in")

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.admission import LONGEST_RETRY_S, SHORTEST_RETRY_S, Admission
from service.errors import Overloaded

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


async def test_idle_comes_when_the_last_request_is_done() -> None:
    admission = Admission(limit=2)
    await admission.idle()
    with admission.admit(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await admission.idle()
    await admission.idle()

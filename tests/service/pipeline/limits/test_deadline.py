from __future__ import annotations

import asyncio

import pytest

from service.errors import DeadlineExceeded
from service.pipeline.limits.deadline import Deadline

pytestmark = pytest.mark.anyio

FOREVER_S = 3600.0


def remaining_s(deadline: Deadline) -> float:
    """Time until the block would end now."""
    at = deadline._timeout.when()
    assert at is not None
    return at - asyncio.get_running_loop().time()


async def test_time_that_has_passed_counts() -> None:
    deadline = Deadline(100.0, elapsed_s=30.0)
    assert remaining_s(deadline) == pytest.approx(70.0, abs=5)
    assert deadline.limit_s == 100.0
    assert remaining_s(Deadline(100.0)) == pytest.approx(100.0, abs=5)


async def test_end_is_an_error_that_names_the_whole_limit() -> None:
    with pytest.raises(DeadlineExceeded, match=r"^The request was not answered within 100 s\.$"):
        async with Deadline(100.0, elapsed_s=100.0):
            await asyncio.sleep(FOREVER_S)


async def phases(deadline: Deadline, *limits_s: float, ended: bool) -> None:
    """Go through phases, and then wait until the deadline ends the block."""
    async with deadline:
        for limit_s in limits_s:
            deadline.begin_phase(limit_s)
        if ended:
            deadline.end_phase()
        await asyncio.sleep(FOREVER_S)


async def test_end_of_a_phase_names_its_limit() -> None:
    with pytest.raises(DeadlineExceeded, match=r"^The request was not answered within 0\.01 s\.$"):
        await phases(Deadline(FOREVER_S), 100.0, 0.01, ended=False)


async def test_after_a_phase_the_whole_limit_counts() -> None:
    async with Deadline(100.0) as deadline:
        deadline.begin_phase(50.0)
        assert remaining_s(deadline) == pytest.approx(50.0, abs=5)
        deadline.end_phase()
        assert remaining_s(deadline) == pytest.approx(100.0, abs=5)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await phases(Deadline(0.05), 0.04, ended=True)


async def test_a_phase_cannot_outlast_the_whole_limit() -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await phases(Deadline(0.05), 100.0, ended=False)


async def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Deadline(100.0):
            raise ZeroDivisionError
    async with Deadline(100.0):
        pass

"""A contender's process is stopped when it is not asked, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from service.contenders.contender import Turn
from service.contenders.process import ContenderProcess
from tests.processes import stat
from tests.service.contenders.workloads import clips, contender

PATIENCE_S = 20.0
STARTED_BY_ANOTHER = """
import time
from service.contenders.process import ContenderProcess
from tests.service.contenders.workloads import clips, contender
process = ContenderProcess(contender({factory!r}))
process.load(clips(1))
print(process.pid, flush=True)
time.sleep(600)
"""


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def state(pid: int) -> str | None:
    """The letter of /proc: T is stopped; None where there is no such process."""
    fields = stat(pid)
    return fields[0] if fields else None


def cpu_s(pid: int) -> float:
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_one_that_spins_is_stopped_between_its_turns() -> None:
    with ContenderProcess(contender("spinning")) as process:
        process.load(clips(1))
        assert eventually(lambda: state(process.pid) == "T")
        before = cpu_s(process.pid)
        time.sleep(0.3)
        assert cpu_s(process.pid) == before
        assert process.turn(Turn(1, 0.0, 0)).runs_s
        assert eventually(lambda: state(process.pid) == "T")


def test_process_ends_at_the_end_of_the_block() -> None:
    with ContenderProcess(contender("doubling")) as process:
        process.load(clips(1))
    assert state(process.pid) is None


@pytest.mark.parametrize("factory", ["doubling", "spinning"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_process_ends_with_the_one_that_started_it_however_that_ends(
    factory: str, end: signal.Signals
) -> None:
    command = [sys.executable, "-c", STARTED_BY_ANOTHER.format(factory=factory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert state(pid) is not None
        starter.send_signal(end)
    assert eventually(lambda: state(pid) in (None, "Z"))  # Z: where nobody reaps orphans

"""A workload's process is stopped between requests and never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from service.subprocesses.process import WorkloadProcess
from service.subprocesses.workload import Repeat
from tests.service.subprocesses.workloads import clips, workload
from tests.support.processes import stat

PATIENCE_S = 20.0
PARENT = """
import time
from service.subprocesses.process import WorkloadProcess
from tests.service.subprocesses.workloads import clips, workload
process = WorkloadProcess(workload({factory!r}))
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
    """The state letter of /proc, where T is stopped; None if there is no such process."""
    fields = stat(pid)
    return fields[0] if fields else None


def cpu_s(pid: int) -> float:
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_process_with_a_spinning_thread_is_stopped_between_repeats() -> None:
    with WorkloadProcess(workload("spinning")) as process:
        process.load(clips(1))
        assert eventually(lambda: state(process.pid) == "T")
        before = cpu_s(process.pid)
        time.sleep(0.3)
        assert cpu_s(process.pid) == before
        assert process.repeat(Repeat(1, 0.0, 0)).runs_s
        assert eventually(lambda: state(process.pid) == "T")


def test_the_process_ends_with_the_block() -> None:
    with WorkloadProcess(workload("doubling")) as process:
        process.load(clips(1))
    assert state(process.pid) is None


@pytest.mark.parametrize("factory", ["doubling", "spinning"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_with_its_parent_however_that_ends(factory: str, end: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT.format(factory=factory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert state(pid) is not None
        parent.send_signal(end)
    assert eventually(lambda: state(pid) in (None, "Z"))  # Z: no init process reaps orphans


def test_a_process_starts_where_no_file_can_be_written() -> None:
    """As on a full or read-only disk."""
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from service.subprocesses.process import WorkloadProcess
from tests.service.subprocesses.workloads import clips, workload
with WorkloadProcess(workload("doubling")) as process:
    process.load(clips(1))
    print(process.compute(clips(2)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "{'logits': array([[0.],\n       [2.]])}\n"

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.workers.fork_server import ForkServer


def test_a_process_that_had_workers_leaves_nothing_open_when_it_ends() -> None:
    program = """
from service.workers.fork_server import FORK_SERVER
worker, channel = FORK_SERVER.start_worker(1024)
channel.close()
worker.exit_status()
print(FORK_SERVER.pid)
"""
    command = [sys.executable, "-X", "dev", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == ""  # no ResourceWarning
    assert not alive(int(ended.stdout))


@pytest.mark.parametrize("worker_first", [True, False])
def test_closed_server_has_ended_and_another_starts_on_need(worker_first: bool) -> None:
    server = ForkServer()
    server.close()  # nothing to end
    pids = []
    for _ in range(2):
        worker, channel = server.start_worker(1024)
        assert server.pid is not None
        pids.append(server.pid)
        if worker_first:
            channel.close()
            worker.exit_status()
            server.close()
        else:
            server.close()
            channel.close()
            worker.exit_status()
        assert not alive(pids[-1])
    assert len(set(pids)) == 2


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()

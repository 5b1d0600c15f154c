"""The process of a workload: `python -m service.subprocesses.worker SOCKET PARENT`.

It ends when the socket is closed or its parent ends for any reason.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from service.errors import BlvnetError
from service.subprocesses.workload import (
    Arrays,
    Compute,
    Computed,
    Failed,
    Load,
    Loaded,
    Repeat,
    RunBatch,
    Timed,
)

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
MAX_RUNS = 1000  # per repeat
BYTES_PER_KB = 1024  # in /proc


def main() -> None:
    """Answer the requests of the process at the other end of the socket."""
    channel, parent = (int(word) for word in sys.argv[1:])
    # The kernel ends this process with its parent, even while it is stopped.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before the call
    with Connection(channel) as connection:
        serve(connection)


def serve(connection: Connection) -> None:
    """Answer requests until the connection is closed; the first one is a `Load`."""
    server = WorkloadServer()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(server.answer(request))
        except BlvnetError as exc:
            connection.send(Failed(exc.with_traceback(None)))


class WorkloadServer:
    """A loaded workload and the clips that its batches are taken from."""

    _run_batch: RunBatch
    _clips: Arrays

    def answer(self, request: Load | Repeat | Compute) -> Loaded | Timed | Computed:
        """Answer a request."""
        match request:
            case Load():
                self._clips = request.clips
                module, _, function = request.workload.factory.partition(":")
                start = time.perf_counter()
                self._run_batch = getattr(import_module(module), function)(**request.workload.options)
                self._run_batch(self._batch(1))
                return Loaded(time.perf_counter() - start)
            case Repeat():
                return self._repeat(request)
            case Compute():
                return Computed(self._run_batch(request.clips))

    def _repeat(self, repeat: Repeat) -> Timed:
        batch = self._batch(repeat.batch)
        for _ in range(repeat.untimed):
            self._run_batch(batch)
        runs_s: list[float] = []
        first = time.perf_counter()
        while len(runs_s) < MAX_RUNS:
            start = time.perf_counter()
            self._run_batch(batch)
            end = time.perf_counter()
            runs_s.append(end - start)
            if end - first >= repeat.duration_s:
                break
        return Timed(runs_s, peak_bytes())

    def _batch(self, size: int) -> Arrays:
        return {name: array[:size] for name, array in self._clips.items()}


def peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * BYTES_PER_KB


if __name__ == "__main__":
    main()

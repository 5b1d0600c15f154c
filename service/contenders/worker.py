"""A contender's process: `python -m service.contenders.worker SOCKET PARENT`.

It computes when it is told to, and at no other time. It ends when the socket is closed, and with the process
that started it, however that one ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from service.contenders.contender import (
    Answered,
    Arrays,
    Failed,
    Load,
    Loaded,
    Question,
    Timed,
    Turn,
    Workload,
)
from service.errors import BlvnetError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
MOST_RUNS = 1000  # in one turn
BYTES_PER_KB = 1024  # of /proc


def main() -> None:
    """Serve the process that holds the other end of the socket."""
    channel, parent = (int(word) for word in sys.argv[1:])
    _end_with(parent)
    with Connection(channel) as connection:
        serve(connection)


def serve(connection: Connection) -> None:
    """Do what comes over `connection` until it is closed."""
    desk = _Desk()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(desk.answer(request))
        except BlvnetError as exc:
            connection.send(Failed(exc.with_traceback(None)))


class _Desk:
    """The workload of this process and its clips, once they are there."""

    _workload: Workload
    _clips: Arrays

    def answer(self, request: Load | Turn | Question) -> Loaded | Timed | Answered:
        match request:
            case Load():
                return self._load(request)
            case Turn():
                return self._run(request)
            case Question():
                return Answered(self._workload(request.clips))

    def _load(self, load: Load) -> Loaded:
        self._clips = load.clips
        module, _, function = load.contender.factory.partition(":")
        start = time.perf_counter()
        self._workload = getattr(import_module(module), function)(**load.contender.options)
        self._workload(_first(self._clips, 1))
        return Loaded(time.perf_counter() - start)

    def _run(self, turn: Turn) -> Timed:
        clips = _first(self._clips, turn.batch)
        for _ in range(turn.untimed):
            self._workload(clips)
        return Timed(list(self._timed(clips, turn.turn_s)), peak_bytes())

    def _timed(self, clips: Arrays, turn_s: float) -> Iterator[float]:
        begin = time.perf_counter()
        for _ in range(MOST_RUNS):
            start = time.perf_counter()
            self._workload(clips)
            end = time.perf_counter()
            yield end - start
            if end - begin >= turn_s:
                return


def peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * BYTES_PER_KB


def _first(clips: Arrays, count: int) -> Arrays:
    return {name: array[:count] for name, array in clips.items()}


def _end_with(parent: int) -> None:
    """Ask the kernel for an end that comes even to a stopped process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was watched
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The measuring process's handle to a workload's process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self, TypeVar

from service.errors import BlvnetError
from service.subprocesses.workload import (
    Arrays,
    Compute,
    Computed,
    Failed,
    Load,
    Loaded,
    Repeat,
    Timed,
    Workload,
)

Reply = TypeVar("Reply", Loaded, Timed, Computed)


class WorkloadDied(BlvnetError):
    """A workload's process ended, for example by a signal or an unexpected exception."""


class WorkloadProcess:
    """A workload in a separate process, stopped (SIGSTOP) except while it answers a request.

    Engines have threads that spin while they wait. In a stopped process they take no CPU time from others.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        # A file in memory, because the disk may be full or read-only.
        self._output = os.fdopen(os.memfd_create("output"), "w+", encoding="utf-8", errors="replace")
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", "service.subprocesses.worker", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=os.environ | {"PYTHONPATH": import_path()} | workload.environment,
                start_new_session=True,  # Ctrl-C interrupts the measuring process, which ends this one
            )
        self._connection = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def load(self, clips: Arrays) -> Loaded:
        """Load the workload. Repeats take their batches from `clips`.

        Raises:
            WorkloadDied: its process ended. The message is the reason.
            BlvnetError: raised by the factory.
        """
        return self._ask(Load(self.workload, clips), Loaded)

    def repeat(self, repeat: Repeat) -> Timed:
        """Time runs of a batch. Raises the errors of `load`."""
        return self._ask(repeat, Timed)

    def compute(self, clips: Arrays) -> Arrays:
        """Return the outputs of `clips`. Raises the errors of `load`."""
        return self._ask(Compute(clips), Computed).outputs

    def close(self) -> None:
        """End the process. May be called more than once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._output.close()

    def _ask(self, request: Load | Repeat | Compute, kind: type[Reply]) -> Reply:
        self._process.send_signal(signal.SIGCONT)
        try:
            self._connection.send(request)
            reply = self._connection.recv()
        except (EOFError, OSError) as exc:
            raise WorkloadDied(self._death_reason()) from exc
        finally:
            self._process.send_signal(signal.SIGSTOP)
        if isinstance(reply, Failed):
            raise reply.error
        assert isinstance(reply, kind)
        return reply

    def _death_reason(self) -> str:
        """Return why the process ended: its last line of output, or the signal."""
        status = self._process.wait()
        self._output.seek(0)
        lines = self._output.read().split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return last or f"its process ended with status {status}"


def import_path() -> str:
    """Return the import path of this process as a `PYTHONPATH`, so that a child finds the same modules."""
    return os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)

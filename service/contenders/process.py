"""The measuring side of a contender's process: start, wake, ask, stop, end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self, TypeVar

from service.contenders.contender import (
    Answered,
    Arrays,
    Contender,
    Failed,
    Load,
    Loaded,
    Question,
    Timed,
    Turn,
)
from service.errors import BlvnetError

Reply = TypeVar("Reply", Loaded, Timed, Answered)


class ContenderDied(BlvnetError):
    """A contender's process ended by itself, or what it raised was no error of ours."""


class ContenderProcess:
    """One contender in a process that is stopped (SIGSTOP) except while it answers.

    Engines leave threads behind that wait in a loop; stopped, they take no core from the one that runs.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", "service.contenders.worker", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=os.environ | {"PYTHONPATH": _import_path()} | contender.environment,
                start_new_session=True,  # Ctrl-C is for the measuring process, which ends this one
            )
        self._connection = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def load(self, clips: Arrays) -> Loaded:
        """Load it; all batches will be taken from `clips`.

        Raises:
            ContenderDied: its process did; the message is the reason alone.
            BlvnetError: whatever the factory raised.
        """
        return self._ask(Load(self.contender, clips), Loaded)

    def turn(self, turn: Turn) -> Timed:
        """Have it run, timed. Raises: as `load`."""
        return self._ask(turn, Timed)

    def answers(self, clips: Arrays) -> Arrays:
        """Its outputs for these clips. Raises: as `load`."""
        return self._ask(Question(clips), Answered).outputs

    def close(self) -> None:
        """End the process; can be called again."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._errors.close()

    def _ask(self, request: Load | Turn | Question, kind: type[Reply]) -> Reply:
        with self._awake():
            try:
                self._connection.send(request)
                reply = self._connection.recv()
            except (EOFError, OSError) as exc:
                raise ContenderDied(self._last_words()) from exc
        if isinstance(reply, Failed):
            raise reply.error
        assert isinstance(reply, kind)
        return reply

    @contextmanager
    def _awake(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def _last_words(self) -> str:
        """Why it died: the last line that it wrote, or the signal that ended it."""
        self._process.send_signal(signal.SIGCONT)
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return last or f"its process ended with status {status}"


def _import_path() -> str:
    """What this process imports from, for a factory that is not installed, such as a benchmark's own."""
    return os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)

"""How decode workers come to life, and what is believed of what they say.

The `multiprocessing` context that the decode pool hands to pebble. Two things differ from the one that comes
with Python. A worker does not load the program that started it. And since a worker runs a decoder on hostile
files, a message from it is not unpickled at its word: unpickling calls what the message names, so only names
on a short list are looked up, none of which does anything but hold values.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from multiprocessing import context, forkserver, reduction
from multiprocessing.connection import (  # type: ignore[attr-defined]  # typeshed leaves the last one out
    Connection,
    Pipe,
    reduce_connection,
)
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

# What a Python interpreter needs to find its modules; nothing else of the environment reaches a worker.
KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
# No threads before the fork; and no 64 MB of address space for each decoder thread, which the limit counts.
FORK_SERVER_VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

LARGEST_MESSAGE = 16_000_000
# Modules -> what a worker's message may name in them. Of errors, all: they are plain classes.
BELIEVED = {
    "pebble.common.types": {"Result", "ResultStatus", "RemoteException.rebuild_exception"},
    "pebble.pool.process": {"Acknowledgement", "TaskResult", "TaskProblem"},
    "service.clip.video": {"VideoInfo"},
    "service.decode_worker": {"Found"},
}
ERROR_MODULES = ("builtins", "service.errors")


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles results and errors of decoding, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name.

        Raises:
            pickle.PicklingError: it is not on the list; pebble takes the worker for broken.
        """
        if name in BELIEVED.get(module, ()):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _member
        if module in ERROR_MODULES and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, Exception):
                return found
        raise pickle.PicklingError(f"a decode worker may not send {module}.{name}")


def _member(kind: object, name: str) -> Enum:
    """What a message gets for `getattr`, by which Python before 3.11.4 names a member of an enumeration."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[name]
    raise pickle.PicklingError(f"a decode worker may not send an attribute of {kind!r}")


class CheckedConnection(Connection):
    """The service's end of the pipe on which workers answer."""

    def recv(self) -> Any:
        """The next message; see `CheckedUnpickler`."""
        return CheckedUnpickler(io.BytesIO(self.recv_bytes(LARGEST_MESSAGE))).load()


# In a worker it is a plain connection: there it brings tasks from the service, which is trusted.
reduction.register(CheckedConnection, reduce_connection)


class WorkerProcess(context.ForkServerProcess):
    """A process that does not import the program that started it.

    multiprocessing makes every new process import the parent's main module, for functions defined there. A
    worker needs none, and a command line or a web server in each of them costs memory and is code that could
    be attacked.
    """

    _hiding = threading.Lock()

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802 - multiprocessing's name
        with WorkerProcess._hiding:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return context.ForkServerProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class WorkerContext(context.ForkServerContext):
    """Starts `WorkerProcess`es, and checks what comes from them."""

    Process = WorkerProcess

    def Pipe(self, duplex: bool = True) -> tuple[CheckedConnection, Connection]:  # noqa: N802 - as above
        """A pipe whose reading end, as long as it stays in this process, is a `CheckedConnection`."""
        reader, writer = Pipe(duplex)
        with reader:
            return CheckedConnection(os.dup(reader.fileno()), writable=duplex), writer


CONTEXT = WorkerContext()
_starting = threading.Lock()


def start_fork_server() -> None:
    """Start the process that workers are forked from, without threads and secrets; once, unless it died."""
    with _starting:
        if not _fork_server_lives():
            CONTEXT.set_forkserver_preload(["service.clip.decode", "service.decode_worker"])
            with _bare_environment():
                forkserver.ensure_running()


def _fork_server_lives() -> bool:
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # as above
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


@contextmanager
def _bare_environment() -> Iterator[None]:
    """Hide the environment, where keys and passwords live, from a process that is started meanwhile."""
    saved = dict(os.environ)
    kept = {name: saved[name] for name in KEPT_VARIABLES if name in saved}
    os.environ.clear()
    os.environ.update(kept | FORK_SERVER_VARIABLES)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)

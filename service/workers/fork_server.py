"""The process that decode workers are forked from, and how the service asks it for one.

    service ──control socket──> fork server ──fork──> worker        milliseconds, FFmpeg being loaded already
       ^  └──────────────── channel ────────────────────┘
       └── status pipe: the worker's id, and its exit status once it has ended

`multiprocessing` has such a server too, but it hands on what a worker should not have: the environment, where
keys and passwords live, the program that started it, a few descriptors. This one starts bare and has nothing
to hand on. It ends when the service does, and its workers with it.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

from service.workers import decode_worker

# What a Python interpreter needs to find its libraries; nothing else of the environment reaches a worker.
KEPT_VARIABLES = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
# No threads before the fork; and no 64 MB of address space for each decoder thread, which the limit counts.
SET_VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

# A request: a worker's memory in MB, and its nice value.
REQUEST = struct.Struct("=qq")
# A status: a process id, an error number below zero, or at the end an exit status, below zero for a signal.
NUMBER = struct.Struct("=q")
# Without callers the server ends within milliseconds.
ENDS_S = 5.0


@dataclass(frozen=True)
class WorkerProcess:
    """A worker, seen from the service; the descriptor `status` can be read once the worker has ended."""

    pid: int
    status: int

    @property
    def ended(self) -> bool:
        """Whether its end is known."""
        return bool(select.select([self.status], [], [], 0)[0])

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)

    def exit_status(self) -> int:
        """How it ended, below zero for a signal; waits for that. To be asked once."""
        message = os.read(self.status, NUMBER.size)
        os.close(self.status)
        # The fork server is gone without telling; its workers are killed when that happens.
        return int(NUMBER.unpack(message)[0]) if message else -signal.SIGKILL


class ForkServer:
    """Starts workers; the server itself is started on first need, and again if it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, if it was started."""
        return None if self._process is None else self._process.pid

    def start_worker(self, memory_mb: int, niceness: int = 0) -> tuple[WorkerProcess, socket.socket]:
        """A new worker and our end of the channel to it. Blocks; the first time for a third of a second.

        Raises:
            OSError: no process, socket or memory is to be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        status, told = os.pipe2(os.O_CLOEXEC)
        try:
            with theirs, self._lock:
                socket.send_fds(self._running(), [REQUEST.pack(memory_mb, niceness)], [theirs.fileno(), told])
            os.close(told)
            told = -1
            pid = _number(status)
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
        except BaseException:
            ours.close()
            os.close(status)
            raise
        finally:
            if told >= 0:
                os.close(told)
        ours.setblocking(False)
        return WorkerProcess(pid, status), ours

    def close(self) -> None:
        """Let the server end, which it does once nobody can ask it for workers; another starts on need."""
        with self._lock:
            if self._control is None or self._process is None:
                return
            self._control.close()
            try:
                self._process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._control = self._process = None

    def _running(self) -> socket.socket:
        """The control socket of a server that lives."""
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, "-P", "-m", "service.workers.fork_server", str(theirs.fileno())],
                env=bare_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a terminal's signals are for the service
            )
        return self._control


FORK_SERVER = ForkServer()
atexit.register(FORK_SERVER.close)


def bare_environment() -> dict[str, str]:
    """What the server, and so each worker, is started with; it finds the modules that this process finds."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | SET_VARIABLES | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _number(pipe: int) -> int:
    message = os.read(pipe, NUMBER.size)
    if len(message) < NUMBER.size:
        raise OSError(errno.ECHILD, "the fork server has ended")
    return int(NUMBER.unpack(message)[0])


def serve(control: socket.socket) -> None:
    """Fork workers until the service has gone: the life of the server."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child_ended, wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_up)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        readable = select.select([control.fileno(), child_ended], [], [])[0]
        if child_ended in readable:
            os.read(child_ended, 4096)
            _reap(statuses)
        if control.fileno() in readable:
            message, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
            if not message:
                return
            channel, status = descriptors
            _fork(channel, status, REQUEST.unpack(message), statuses)


def _fork(channel: int, status: int, request: tuple[int, int], statuses: dict[int, int]) -> None:
    try:
        pid = os.fork()
    except OSError as exc:
        os.write(status, NUMBER.pack(-(exc.errno or errno.EAGAIN)))
        os.close(status)
    else:
        if pid == 0:
            _become_worker(channel, *request)
        os.write(status, NUMBER.pack(pid))
        statuses[pid] = status
    os.close(channel)


def _become_worker(channel: int, memory_mb: int, niceness: int) -> None:
    """Never returns."""
    try:
        os.nice(niceness)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        decode_worker.main(socket.socket(fileno=channel), memory_mb)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as a server
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _reap(statuses: dict[int, int]) -> None:
    """Tell of all children that have ended."""
    while statuses:
        pid, ended = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status = statuses.pop(pid)
        with suppress(BrokenPipeError):  # the service has gone
            os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(ended)))
        os.close(status)


if __name__ == "__main__":
    from service.clip import preload  # noqa: F401
    from service.workers import sandbox  # noqa: F401 - here and below: loaded before the fork, for the workers

    serve(socket.socket(fileno=int(sys.argv[1])))

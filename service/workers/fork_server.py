"""The process that decode workers are forked from, and the service's client for it.

    service ──control socket──> fork server ──fork──> worker        a few ms, because FFmpeg is already loaded
       ^  └──────────────── channel ────────────────────┘
       └── status pipe: the worker's process id, and its exit status once it has ended

`multiprocessing` also has a fork server, but its children inherit the environment, which holds keys and
passwords, the main module of the program, and descriptors. This server starts with an empty environment and
has nothing to pass on. It ends with the service, and its workers end with it.
"""

from __future__ import annotations

import atexit
import errno
import os
import pkgutil
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

from service.subprocesses.process import import_path
from service.workers import decode_worker
from service.workers.messages import MAX_MESSAGE_BYTES

# The variables that a Python interpreter needs to find its libraries.
KEPT_VARIABLES = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
# OpenBLAS must not start threads before the fork. With more than two arenas, malloc reserves 64 MB of address
# space, which is limited, for each decoder thread.
SET_VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

# A worker cannot open files, so the server imports everything it may need. PyAV imports some modules on first
# use.
PRELOADED = (
    "service.workers.sandbox",
    "service.clip.decoding.clips",
    "service.clip.decoding.windows",
    "encodings.ascii",
    "encodings.latin_1",
)
NOT_PRELOADED = ("av.__main__", "av.datasets")

# The request for a worker: its memory in MB, and its nice value.
REQUEST = struct.Struct("=qq")
# On the status pipe: first a process id, or a negative error number if the fork failed; then the exit status,
# negative for a signal.
NUMBER = struct.Struct("=q")
# How long to wait for the server's end, which takes milliseconds.
END_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class WorkerProcess:
    """A worker process. The descriptor `status` becomes readable when it has ended."""

    pid: int
    status: int

    def kill(self) -> None:
        """Kill the process unless it has ended, because its process id may then belong to another process."""
        poll = select.poll()
        poll.register(self.status, select.POLLIN)
        if not poll.poll(0):
            with suppress(ProcessLookupError):  # it has just ended, and its status is on the way
                os.kill(self.pid, signal.SIGKILL)

    def exit_status(self) -> int:
        """Wait for the end and return the exit status, negative for a signal. Call it once."""
        message = os.read(self.status, NUMBER.size)
        os.close(self.status)
        # Without a message the fork server has died, and the kernel kills its workers.
        return int(NUMBER.unpack(message)[0]) if message else -signal.SIGKILL


class ForkServer:
    """Client of the fork server; starts the server on first use and again if it died."""

    MODULE: ClassVar = "service.workers.fork_server"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None before the first worker."""
        return None if self._process is None else self._process.pid

    def start_worker(self, memory_mb: int, niceness: int = 0) -> tuple[WorkerProcess, socket.socket]:
        """Start a worker; return it and our end of its channel. Blocks, at first for a third of a second.

        Raises:
            OSError: there are no processes, descriptors or memory left.
        """
        with ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            # The kernel doubles it; by default it refuses messages above 213 kB.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE_BYTES)
            with theirs, ExitStack() as sending:
                status, sent = os.pipe2(os.O_CLOEXEC)
                undo.callback(os.close, status)
                sending.callback(os.close, sent)
                with self._lock:
                    socket.send_fds(
                        self._connect(), [REQUEST.pack(memory_mb, niceness)], [theirs.fileno(), sent]
                    )
            # Our copies of the sent descriptors are closed, so the pipe ends when the server ends.
            message = os.read(status, NUMBER.size)
            pid = NUMBER.unpack(message)[0] if len(message) == NUMBER.size else -errno.ECHILD
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid) if message else "the fork server started no worker")
            ours.setblocking(False)
            undo.pop_all()
        return WorkerProcess(pid, status), ours

    def close(self) -> None:
        """End the server. A new one is started when a worker is needed."""
        with self._lock:
            if self._control is None or self._process is None:
                return
            self._control.close()
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._control = self._process = None

    def _connect(self) -> socket.socket:
        """Return the control socket of the running server; start a server if there is none."""
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-P", "-m", self.MODULE, str(theirs.fileno())],
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # signals from a terminal are for the service only
            )
        return self._control


FORK_SERVER = ForkServer()
atexit.register(FORK_SERVER.close)


def server_environment() -> dict[str, str]:
    """Return the environment of the server and its workers, which import from the same folders as we do."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | SET_VARIABLES | {"PYTHONPATH": import_path()}


def main() -> None:
    """Run the server; its argument is the descriptor of the control socket."""
    import av  # FFmpeg is loaded here and in no other process of the service

    av_modules = (module.name for module in pkgutil.walk_packages(av.__path__, "av."))
    for name in (*PRELOADED, *av_modules):
        if name not in NOT_PRELOADED:
            import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))


def serve(control: socket.socket) -> None:
    """Fork workers on request until the service closes the control socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child_ended, wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_up)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(child_ended, selectors.EVENT_READ)
    statuses: dict[int, int] = {}  # process id -> our end of the status pipe
    while True:
        readable = {key.fd for key, _ in selector.select()}
        if child_ended in readable:
            os.read(child_ended, 4096)
            while statuses and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                status = statuses.pop(ended[0])
                _send_number(status, os.waitstatus_to_exitcode(ended[1]))
                os.close(status)
        if control.fileno() in readable:
            message, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
            if not message:
                return
            if len(descriptors) == 2:
                channel, status = descriptors
                _fork(channel, status, REQUEST.unpack(message), statuses)
            else:  # no descriptors are left; the service sees the end of the status pipe
                for descriptor in descriptors:
                    os.close(descriptor)


def _fork(channel: int, status: int, request: tuple[int, int], statuses: dict[int, int]) -> None:
    try:
        pid = os.fork()
    except OSError as exc:
        _send_number(status, -(exc.errno or errno.EAGAIN))
        os.close(status)
    else:
        if pid == 0:
            _become_worker(channel, *request)
        _send_number(status, pid)
        statuses[pid] = status
    os.close(channel)


def _become_worker(channel: int, memory_mb: int, niceness: int) -> None:
    """Run a worker in the child process; never returns."""
    try:
        os.nice(niceness)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        decode_worker.main(socket.socket(fileno=channel), memory_mb)
    except BaseException:  # noqa: BLE001 - after any error, the child must not continue as a server
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _send_number(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the service has ended
        os.write(status, NUMBER.pack(number))


if __name__ == "__main__":
    main()

"""What code inside a worker can and cannot do."""

from __future__ import annotations

import ast
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from seccompy import syscalls

from service.workers import sandbox
from service.workers.fork_server import ForkServer
from service.workers.messages import DecodeFailure, Ready, WorkerMessage, read_worker_message

PATIENCE_MS = 30_000
IMPORTS = "import ctypes, mmap, os, resource, signal, socket, sys, threading"


class ProbeServer(ForkServer):
    """Starts workers that run code."""

    MODULE = "tests.service.workers.probe_server"


class ProbeWorker:
    """A worker in its sandbox that runs code."""

    def __init__(self) -> None:
        self._server = ProbeServer()
        self._process, self._channel = self._server.start_worker(memory_mb=512)
        assert self._receive() == Ready(("seccomp", "landlock"))

    def run(self, source: str) -> str:
        """The repr of `result` after running `source`, or of the name of an `OSError`."""
        self._channel.send(f"{IMPORTS}\n{source}".encode())
        message = self._receive()
        assert isinstance(message, DecodeFailure)
        return message.error

    def _receive(self) -> WorkerMessage:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        assert poll.poll(PATIENCE_MS)
        return read_worker_message(self._channel.recv(10_000))

    def close(self) -> None:
        self._channel.close()
        self._process.exit_status()
        self._server.close()


@pytest.fixture(scope="module")
def worker() -> Iterator[ProbeWorker]:
    worker = ProbeWorker()
    yield worker
    worker.close()


FORBIDDEN = {
    "open a file": "result = open('/etc/hostname').read()",
    "open its own memory": "result = open('/proc/self/mem', 'rb').read(1)",
    "list a folder": "result = os.listdir('/')",
    "look at a file": "result = os.stat('/etc/hostname')",
    "write a file": "result = open('/tmp/blvnet-made-by-a-worker', 'w')",
    "make a folder": "result = os.mkdir('made')",
    "remove a file": "result = os.unlink('/tmp/blvnet-made-by-a-worker')",
    "internet socket": "result = socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "datagram socket": "result = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "local socket": "result = socket.socket(socket.AF_UNIX)",
    "netlink socket": "result = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "fork": "result = os.fork()",
    "spawn a program": "result = os.posix_spawn('/bin/true', ['true'], {})",
    "execute a program": "result = os.execv('/bin/true', ['true'])",
    "signal the service": "result = os.kill(os.getppid(), signal.SIGCONT)",
    "signal all processes": "result = os.kill(-1, 0)",
    "wait for children": "result = os.waitpid(-1, 0)",
    "another user": "result = os.setuid(0)",
    "executable memory": "result = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "a new pipe": "result = os.pipe()",
    "a new memory file": "result = os.memfd_create('x')",
    "another folder": "result = os.chdir('/')",
}


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_worker_cannot(worker: ProbeWorker, source: str) -> None:
    assert ast.literal_eval(worker.run(source)) == "PermissionError"


# System calls without a function in Python: name -> arguments.
BARE_CALLS = {
    "ptrace": "0, 0, 0, 0",
    "process_vm_readv": "os.getppid(), 0, 0, 0, 0, 0",
    "unshare": "0x10000000",
    "io_uring_setup": "1, 0",
    "bpf": "0, 0, 0",
    "userfaultfd": "0",
    "keyctl": "0, 0, 0",
    "perf_event_open": "0, 0, 0, 0, 0",
    "open_by_handle_at": "0, 0, 0",
    "sendmsg": "3, 0, 0",
    "prlimit64": "0, resource.RLIMIT_AS, 0, 0",
    "pidfd_open": "os.getppid(), 0",
    "clone": "17, 0, 0, 0, 0",
}


@pytest.mark.parametrize("name", BARE_CALLS)
def test_a_worker_cannot_call(worker: ProbeWorker, name: str) -> None:
    source = f"""libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({syscalls.syscall_nr(name)}, {BARE_CALLS[name]}), ctypes.get_errno()"""
    assert ast.literal_eval(worker.run(source)) == (-1, 1)  # EPERM


def test_the_x32_numbers_of_system_calls_are_denied(worker: ProbeWorker) -> None:
    x32 = 0x40000000 + syscalls.syscall_nr("getppid")
    source = f"""libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({x32}), ctypes.get_errno()"""
    assert ast.literal_eval(worker.run(source)) == (-1, 1)


def test_a_worker_can_start_threads_and_allocate_memory(worker: ProbeWorker) -> None:
    source = """done = []
threads = [threading.Thread(target=done.append, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = sorted(done), len(bytearray(50_000_000)), len(mmap.mmap(-1, 4096))"""
    assert ast.literal_eval(worker.run(source)) == ([0, 1, 2, 3], 50_000_000, 4096)


def test_a_worker_has_no_environment_and_no_modules_of_the_service(worker: ProbeWorker) -> None:
    assert worker.run("result = dict(os.environ)") == "{}"
    assert worker.run("result = sorted({'fastapi', 'onnxruntime', 'pydantic'} & sys.modules.keys())") == "[]"


def test_every_allowed_system_call_exists_on_both_architectures() -> None:
    for table in (syscalls.X86_64_SYSCALLS, syscalls.AARCH64_SYSCALLS):
        assert set(sandbox.ALLOWED) <= table.keys()


ALONE = """
import os, socket, sys
from service.workers import sandbox
sandbox.{missing} = False
out = int(sys.argv[1])
outcomes = [sandbox.enter(out, 512)]
for attempt in (lambda: open('/etc/hostname'), lambda: os.listdir('/'),
                lambda: socket.socket().connect(('127.0.0.1', 9))):
    try:
        attempt()
        outcomes.append('done')
    except OSError as exc:
        outcomes.append(type(exc).__name__)
os.write(out, repr(outcomes).encode())
"""


@pytest.mark.parametrize(("missing", "active"), [("SECCOMP", "landlock"), ("LANDLOCK", "seccomp")])
def test_each_mechanism_is_enough_alone(missing: str, active: str) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        subprocess.run(
            [sys.executable, "-c", ALONE.format(missing=missing), str(writer.fileno())],
            pass_fds=[writer.fileno()], check=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        outcomes = ast.literal_eval(reader.recv(1000).decode())
    assert outcomes == [(active,), "PermissionError", "PermissionError", "PermissionError"]

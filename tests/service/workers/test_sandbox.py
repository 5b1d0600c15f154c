"""What can and cannot be done inside a worker, tried inside real ones."""

from __future__ import annotations

import ast
import pickle
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from seccompy import syscalls

from service.workers import sandbox
from service.workers.decode_worker import LARGEST_MESSAGE, Ready
from service.workers.fork_server import FORK_SERVER
from service.workers.worker_messages import unpickled

PATIENCE_S = 30.0
PROBE = """
import ctypes, mmap, os, resource, signal, socket, sys, threading
try:
{source}
except OSError as exc:
    result = type(exc).__name__
raise RuntimeError(repr(result))
"""


class Code:
    """Unpickled, it is run: a worker believes what the service sends."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.source, {})


class CagedWorker:
    """A real worker, and a way to run code in it."""

    def __init__(self) -> None:
        self.process, self.channel = FORK_SERVER.start_worker(memory_mb=512)
        assert self._receive() == Ready(seccomp=True, landlock=True)

    def run(self, source: str) -> str:
        """The repr of `result` after running `source`, or the name of the error."""
        code = PROBE.format(source=textwrap.indent(source, "    "))
        with Path("/dev/null").open("rb") as null:
            socket.send_fds(self.channel, [pickle.dumps(Code(code))], [null.fileno(), null.fileno()])
        answer = self._receive()
        assert isinstance(answer, RuntimeError), answer
        return str(answer).removeprefix("RuntimeError: ")

    def _receive(self) -> object:
        assert select.select([self.channel], [], [], PATIENCE_S)[0]
        return unpickled(self.channel.recv(LARGEST_MESSAGE))

    def close(self) -> None:
        self.channel.close()
        self.process.exit_status()


@pytest.fixture(scope="module")
def worker() -> Iterator[CagedWorker]:
    worker = CagedWorker()
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
    "vfork and run": "result = os.posix_spawn('/bin/true', ['true'], {})",
    "become a program": "result = os.execv('/bin/true', ['true'])",
    "signal the service": "result = os.kill(os.getppid(), signal.SIGCONT)",
    "signal everybody": "result = os.kill(-1, 0)",
    "wait for children": "result = os.waitpid(-1, 0)",
    "another user": "result = os.setuid(0)",
    "memory that runs": "result = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "a new pipe": "result = os.pipe()",
    "a new memory file": "result = os.memfd_create('x')",
    "another folder": "result = os.chdir('/')",
}


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_worker_cannot(worker: CagedWorker, source: str) -> None:
    assert ast.literal_eval(worker.run(source)) == "PermissionError"


# Calls that Python has no function for, by their names and arguments.
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
def test_a_worker_cannot_call(worker: CagedWorker, name: str) -> None:
    source = f"""libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({syscalls.syscall_nr(name)}, {BARE_CALLS[name]}), ctypes.get_errno()"""
    assert ast.literal_eval(worker.run(source)) == (-1, 1)  # EPERM


def test_calls_by_their_other_numbers_are_no_way_round(worker: CagedWorker) -> None:
    x32 = 0x40000000 + syscalls.syscall_nr("getppid")
    source = f"""libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({x32}), ctypes.get_errno()"""
    assert ast.literal_eval(worker.run(source)) == (-1, 1)


def test_a_worker_can_start_threads_and_take_memory(worker: CagedWorker) -> None:
    source = """done = []
threads = [threading.Thread(target=done.append, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = sorted(done), len(bytearray(50_000_000)), len(mmap.mmap(-1, 4096))"""
    assert ast.literal_eval(worker.run(source)) == ([0, 1, 2, 3], 50_000_000, 4096)


def test_a_worker_knows_nothing_of_its_surroundings(worker: CagedWorker) -> None:
    assert worker.run("result = dict(os.environ)") == "{}"
    assert worker.run("result = sorted({'fastapi', 'onnxruntime', 'pydantic'} & sys.modules.keys())") == "[]"


def test_every_allowed_call_is_known_on_both_processors() -> None:
    for table in (syscalls.X86_64_SYSCALLS, syscalls.AARCH64_SYSCALLS):
        assert set(sandbox.ALLOWED) <= table.keys()


ALONE = """
import os, socket, sys
from service.workers import sandbox
sandbox.{missing} = False
out = int(sys.argv[1])
stands = sandbox.enter(out, 512)
found = [(stands.seccomp, stands.landlock)]
for attempt in (lambda: open('/etc/hostname'), lambda: os.listdir('/'),
                lambda: socket.socket().connect(('127.0.0.1', 9))):
    try:
        attempt()
        found.append('done')
    except OSError as exc:
        found.append(type(exc).__name__)
os.write(out, repr(found).encode())
"""


@pytest.mark.parametrize(("missing", "stand"), [("SECCOMP", (False, True)), ("LANDLOCK", (True, False))])
def test_each_fence_stands_alone(missing: str, stand: tuple[bool, bool]) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        subprocess.run(
            [sys.executable, "-c", ALONE.format(missing=missing), str(writer.fileno())],
            pass_fds=[writer.fileno()], check=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        found = ast.literal_eval(reader.recv(1000).decode())
    assert found == [stand, "PermissionError", "PermissionError", "PermissionError"]

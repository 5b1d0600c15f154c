"""What a decode worker gives up before it sees its first clip, from file descriptors to system calls.

Two fences of the kernel stand behind everything else: a seccomp filter, a list of the few system calls that
decoding takes, and a Landlock ruleset, which denies every path and every TCP port. Each works where the other
is missing, and `Sandbox` says which stand: a kernel without one is told of, not passed over in silence.

Whatever has to be opened (modules, FFmpeg's libraries, this module's own) is loaded by the process that
workers are forked from, before any of this.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import landlockpy
import seccompy
from seccompy import Action, ArgCmp, CmpOp, Filter, FilterFlag

BYTES_PER_MB = 1_000_000
MAX_OPEN_FILES = 16
NOBODY = 65_534

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38

# <linux/sched.h>: what every new thread has and no new process.
CLONE_VM = 0x100
CLONE_THREAD = 0x10000
# <fcntl.h>
AT_EMPTY_PATH = 0x1000
F_DUPFD_CLOEXEC = 1030

# What decoding, Python around it and the way back to the service take.
ALLOWED = (
    # descriptors that are open already
    "read", "readv", "pread64", "write", "lseek", "close", "fstat", "recvmsg", "sendto",
    # memory
    "brk", "munmap", "mremap", "madvise",
    # threads, locks and waiting
    "futex", "sched_yield", "sched_getaffinity", "set_robust_list", "rseq", "gettid", "getpid",
    "clock_gettime", "clock_nanosleep", "nanosleep", "restart_syscall", "membarrier",
    # signals to itself, and the end
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group",
    # what the interpreter asks of itself
    "getrandom", "getrusage", "gettimeofday",
)  # fmt: skip


def _has_kernel(supported: Callable[[], bool]) -> bool:
    """Whether the kernel has a fence; one that a container's own filter withholds is as good as none."""
    try:
        return supported()
    except OSError:
        return False


# The libraries look for libc by running programs; done here, before the fork, it is done once.
SECCOMP = _has_kernel(seccompy.supported)
LANDLOCK = _has_kernel(landlockpy.supported)


@dataclass(frozen=True)
class Sandbox:
    """Which of the kernel's fences stand around a worker."""

    seccomp: bool
    landlock: bool


def enter(kept_descriptor: int, memory_mb: int) -> Sandbox:
    """Give up what decoding does not need. There is no way back.

    Args:
        kept_descriptor: The one file descriptor that stays open, beside /dev/null as the standard streams.
        memory_mb: Address space that may be taken beyond what is in use now, in MB of 10^6 bytes.

    Raises:
        OSError: a limit that every kernel has cannot be set.
    """
    _ignore_signals()
    os.environ.clear()
    _enter_empty_folder()
    _close_descriptors(kept_descriptor)
    limit_bytes = _address_space() + memory_mb * BYTES_PER_MB  # needs /proc
    _become_nobody()
    _set_limits(limit_bytes)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return Sandbox(landlock=_forbid_paths(), seccomp=_forbid_system_calls())


def limit_cpu(cpu_s: float) -> None:
    """Die of SIGXCPU after `cpu_s` more seconds of processor time; the limit is the whole process's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _ignore_signals() -> None:
    """A terminal or a service manager signals all processes at once; the service alone decides what ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _enter_empty_folder() -> None:
    """Stand in a folder that is deleted already: it is empty, and nothing can be made in it."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)  # noqa: PTH106 - Path.rmdir does the same


def _close_descriptors(kept: int) -> None:
    """Close all but `kept`; what FFmpeg says of a hostile file does not belong in the service's log."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _become_nobody() -> None:
    """Where the service runs as root, its workers do not; in a container with one user there is no other."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except (PermissionError, OSError):
        if os.geteuid() != 0:
            raise


def _set_limits(address_space_bytes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(kind, (value, value))


def _forbid_paths() -> bool:
    """Deny every path, TCP port, abstract socket and signal to others, as far as the kernel knows how to."""
    if not LANDLOCK:
        return False
    scope = landlockpy.Scope.SIGNAL | landlockpy.Scope.ABSTRACT_UNIX_SOCKET
    with landlockpy.Ruleset(scoped=scope) as ruleset:
        ruleset.restrict()
    return True


def _forbid_system_calls() -> bool:
    """Fail every system call that is not on the list with EPERM."""
    if not SECCOMP:
        return False
    rules = Filter(Action.ERRNO | errno.EPERM, flags=FilterFlag.TSYNC)
    for name in ALLOWED:
        rules.allow(name)
    _allow_memory_without_code(rules)
    # New threads, no new processes. The newer call has its flags in memory, where no filter can look; told
    # that it does not exist, the C library takes the older one.
    rules.errno("clone3", errno.ENOSYS)
    rules.allow("clone", args=[_has(0, CLONE_VM | CLONE_THREAD)])
    rules.allow("tgkill", args={0: os.getpid()})  # how abort() ends the process
    rules.allow("prctl", args={0: PR_SET_NAME})  # names of decoder threads
    rules.allow("prlimit64", args={0: 0, 1: resource.RLIMIT_CPU})
    rules.allow("newfstatat", args=[_has(3, AT_EMPTY_PATH)])  # how some C libraries do fstat
    for command in (F_DUPFD_CLOEXEC, 1, 3):  # F_GETFD, F_GETFL
        rules.allow("fcntl", args={1: command})
    rules.load()
    return True


def _allow_memory_without_code(rules: Filter) -> None:
    """Memory is for data: nothing that a clip brought in can be made executable."""
    for name in ("mmap", "mprotect"):
        rules.allow(name, args=[(2, CmpOp.MASKED_EQ, 0, mmap.PROT_EXEC)])


def _has(index: int, bits: int) -> ArgCmp:
    """All of `bits` are set in an argument."""
    return ArgCmp(index, CmpOp.MASKED_EQ, bits, mask=bits)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _address_space() -> int:
    """Bytes of address space in use."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - nothing to gain from a Path
        return int(file.read().split()[0]) * resource.getpagesize()

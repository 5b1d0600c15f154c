"""The sandbox that a decode worker enters before its first video.

Two mechanisms of the kernel enforce it: a seccomp filter, which allows only the system calls that decoding
needs, and a Landlock ruleset, which denies all paths and TCP ports. Either is enough to prevent access to
files and the network. The service reports which mechanisms the kernel supports.

The fork server loads everything that has to be opened, such as modules and FFmpeg's libraries.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import landlockpy
import seccompy
from seccompy import Action, ArgCmp, CmpOp, Filter, FilterFlag

from service.workers.messages import Mechanism

BYTES_PER_MB = 1_000_000
MAX_OPEN_FILES = 16
NOBODY = 65_534

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38

# <linux/sched.h>: the flags of every new thread, and of no new process.
CLONE_VM = 0x100
CLONE_THREAD = 0x10000
# <fcntl.h>
AT_EMPTY_PATH = 0x1000
F_DUPFD_CLOEXEC = 1030
# <linux/oom.h>
OOM_SCORE_ADJ_MAX = 1000

# The system calls of decoding, of the interpreter, and of the channel to the service.
ALLOWED = (
    # descriptors that are open already
    "read", "readv", "pread64", "write", "lseek", "close", "fstat", "recvmsg", "sendto",
    # memory
    "brk", "munmap", "mremap", "madvise",
    # threads, locks and waiting
    "futex", "sched_yield", "sched_getaffinity", "set_robust_list", "rseq", "gettid", "getpid",
    "clock_gettime", "clock_nanosleep", "nanosleep", "restart_syscall", "membarrier",
    # signal handling, and exit
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group",
    # calls of the interpreter
    "getrandom", "getrusage", "gettimeofday",
)  # fmt: skip


def _kernel_has(supported: Callable[[], bool]) -> bool:
    """Return whether a mechanism can be used; a container's seccomp filter may forbid it."""
    try:
        return supported()
    except OSError:
        return False


# The libraries run programs to find libc. At import, the fork server does so once for all workers.
SECCOMP = _kernel_has(seccompy.supported)
LANDLOCK = _kernel_has(landlockpy.supported)


def enter(kept_descriptor: int, memory_mb: int) -> tuple[Mechanism, ...]:
    """Give up everything that decoding does not need, for good.

    Args:
        kept_descriptor: The file descriptor that stays open, in addition to /dev/null as standard streams.
        memory_mb: Address space that may be used beyond the current use, in MB of 10^6 bytes.

    Returns:
        The mechanisms that are active.

    Raises:
        OSError: a limit that every kernel has cannot be set.
    """
    # A terminal or a service manager signals all processes, but the service decides when a worker ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    _enter_removed_folder()
    # When memory runs out, the kernel kills a worker, which is replaced, instead of the service.
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ_MAX), encoding="ascii")
    address_space = (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    )
    null = os.open(os.devnull, os.O_RDWR)
    # FFmpeg's messages about a hostile file must not reach the service's log.
    for stream in range(3):
        os.dup2(null, stream)
    os.closerange(3, kept_descriptor)
    os.closerange(kept_descriptor + 1, os.sysconf("SC_OPEN_MAX"))
    _drop_root()
    for kind, value in (
        (resource.RLIMIT_AS, address_space + memory_mb * BYTES_PER_MB),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(kind, (value, value))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if LANDLOCK:
        _deny_paths()
    if SECCOMP:
        _deny_system_calls()
    active: dict[Mechanism, bool] = {"seccomp": SECCOMP, "landlock": LANDLOCK}
    return tuple(name for name, is_active in active.items() if is_active)


def limit_cpu(cpu_s: float) -> None:
    """Let the kernel end the process by SIGXCPU after `cpu_s` more seconds of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The limit counts from the start of the process.
    soft = int(usage.ru_utime + usage.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _enter_removed_folder() -> None:
    """Change to a folder that no longer exists, so that nothing can be found or created in it.

    The /proc folder of an ended process is such a folder. It needs no disk, which may be full or read-only.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.chdir(f"/proc/{pid}")  # until `waitpid` the folder exists
    os.waitpid(pid, 0)


def _drop_root() -> None:
    """Become the user `nobody` if the service runs as root."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        # The user namespace of the container has only one user: its root is an ordinary user outside.
        if os.geteuid() != 0:
            raise


def _deny_paths() -> None:
    """Deny all paths, TCP ports, abstract sockets and signals to others, as far as the kernel can."""
    scope = landlockpy.Scope.SIGNAL | landlockpy.Scope.ABSTRACT_UNIX_SOCKET
    with landlockpy.Ruleset(scoped=scope) as ruleset:
        ruleset.restrict()


def _deny_system_calls() -> None:
    """Let every system call that is not allowed fail with EPERM."""
    rules = Filter(Action.ERRNO | errno.EPERM, flags=FilterFlag.TSYNC)
    for name in ALLOWED:
        rules.allow(name)
    for name in ("mmap", "mprotect"):  # no memory that can be executed
        rules.allow(name, args=[(2, CmpOp.MASKED_EQ, 0, mmap.PROT_EXEC)])
    # Allow new threads, but no new processes. The flags of clone3 are in memory, which a filter cannot read.
    # If clone3 seems not to exist, the C library uses clone.
    rules.errno("clone3", errno.ENOSYS)
    rules.allow("clone", args=[_has(0, CLONE_VM | CLONE_THREAD)])
    rules.allow("tgkill", args={0: os.getpid()})  # abort() uses it to end the process
    rules.allow("prctl", args={0: PR_SET_NAME})  # names of decoder threads
    rules.allow("prlimit64", args={0: 0, 1: resource.RLIMIT_CPU})
    rules.allow("newfstatat", args=[_has(3, AT_EMPTY_PATH)])  # some C libraries implement fstat with it
    for command in (F_DUPFD_CLOEXEC, 1, 3):  # F_GETFD, F_GETFL
        rules.allow("fcntl", args={1: command})
    rules.load()


def _has(index: int, bits: int) -> ArgCmp:
    """Return the condition that all of `bits` are set in an argument."""
    return ArgCmp(index, CmpOp.MASKED_EQ, bits, mask=bits)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")

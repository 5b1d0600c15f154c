"""Exhausts the resources of a running service in turn and measures how it recovers.

    python -m benchmarks.chaos

Clients post valid videos to a real service continuously. In turn, file descriptors, memory, the disk for
temporary files and decode processes become unavailable for some seconds. During a fault the service may
reject requests. After it, the same process must be ready and answer valid videos again within ten seconds,
and hold the same resources as before. Otherwise the exit status is 1.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.soak import watch
from benchmarks.soak.requests import VALID, Post, good_clips
from benchmarks.soak.traffic import Traffic
from benchmarks.soak.watch import Held
from model_export.progress import counting

NAME = "chaos"
RECOVERY_LIMIT_S = 10.0
CONSECUTIVE = 5  # correct answers in a row that count as recovered
MAX_RATE = 4.0  # requests per second of the background load
# Share of the capacity that the load uses. Under overload, valid videos are refused without any fault.
LOAD = 0.5
KILL_INTERVAL_S = 0.05
DISK_BYTES = 64 * 2**20
# Views whose tensors exceed the memory that the allocators have in reserve.
VIEWS = {"clips": "10", "crops": "1"}


@dataclass(frozen=True)
class FaultOutcome:
    """What happened during and after one fault.

    Attributes:
        fault: the exhausted resource.
        during: number of answers during the fault, by status and problem code.
        ready_s: seconds from the end of the fault until `/readyz` returned 200; None if it did not within the
            limit.
        recovered_s: seconds from the end of the fault until several valid videos in a row were answered; None
            as above.
        before: resources of the idle service before the fault.
        after: resources of the idle service after recovery.
    """

    fault: str
    during: dict[str, int]
    ready_s: float | None
    recovered_s: float | None
    before: Held
    after: Held

    @property
    def problem(self) -> str | None:
        """The problem with the recovery; None if there is none."""
        if self.ready_s is None:
            return f"{self.fault}: not ready {RECOVERY_LIMIT_S:g} s after the fault"
        if self.recovered_s is None:
            return f"{self.fault}: valid videos were not answered {RECOVERY_LIMIT_S:g} s after the fault"
        if self.after != self.before:
            return f"{self.fault}: resources were {self.before} before and {self.after} after"
        return None


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Duration of each fault.")] = 5.0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="FAULT", help="Inject only this fault; repeatable.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Model packages; default: the bundled demo model.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Inject resource faults and check that the service recovers from each."""
    if unknown := sorted(set(only or []) - set(FAULTS)):
        raise typer.BadParameter(f"unknown fault {', '.join(unknown)}; known: {', '.join(FAULTS)}")
    chosen = [name for name in FAULTS if not only or name in only]
    with tempfile.TemporaryDirectory() as scratch, small_disk(Path(scratch, "tmp")) as disk:
        videos = good_clips(Path(scratch, "videos"))
        settings = {"TMPDIR": str(disk), "BLVNET_LOG_LEVEL": "error"}
        with serving.service(models, settings) as service:
            rate = asyncio.run(sustainable_rate(service.url, videos))
            outcomes = asyncio.run(run(service, videos, chosen, seconds, disk, rate))
    document = {
        "seconds": seconds,
        "requests_per_s": rate,
        "faults": [asdict(outcome) | {"problem": outcome.problem} for outcome in outcomes],
        "machine": report.machine(),
    }
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    if problems := [outcome.problem for outcome in outcomes if outcome.problem]:
        for problem in problems:
            Console(stderr=True).print(problem, highlight=False, style="red")
        raise typer.Exit(1)


async def sustainable_rate(url: str, videos: tuple[bytes, ...]) -> float:
    """Requests per second that use the share `LOAD` of an idle service, at most `MAX_RATE`."""
    async with Traffic(url, [_post(videos)], query=VIEWS) as traffic:
        await traffic.learn()
        began = time.monotonic()
        await traffic.learn()
        seconds_each = (time.monotonic() - began) / len(videos)
    return min(MAX_RATE, LOAD / seconds_each)


async def run(
    service: serving.ServiceProcess,
    videos: tuple[bytes, ...],
    faults: list[str],
    seconds: float,
    disk: Path,
    rate: float,
) -> list[FaultOutcome]:
    """Inject the faults in turn; the load runs during each fault."""
    outcomes = []
    with counting("faults", len(faults)) as tick:
        for fault in faults:
            await watch.at_rest(service.url, service.pid)
            before = Held.by(service.pid, disk)
            async with load(service.url, videos, rate) as answers:
                answers.clear()
                with FAULTS[fault](service.pid, disk):
                    await asyncio.sleep(seconds)
                ended, during = time.monotonic(), Counter(answers)
                ready_s, recovered_s = await recovery(service.url, videos[0], ended)
            if recovered_s is not None:
                await watch.at_rest(service.url, service.pid)
            after = await Held.again(before, service.url, service.pid, disk)
            outcomes.append(FaultOutcome(fault, counts(during), ready_s, recovered_s, before, after))
            tick(1)
    return outcomes


@asynccontextmanager
async def load(url: str, videos: tuple[bytes, ...], rate: float) -> AsyncIterator[Counter[tuple[str, str]]]:
    """Post valid videos at a fixed rate during the block; yields the counts of answers."""
    async with Traffic(url, [_post(videos)], query=VIEWS, keep_alive=False) as traffic:
        await traffic.learn()
        arrivals = [number / rate for number in range(int(rate * 3600))]
        task = asyncio.create_task(traffic.open_loop(arrivals))
        try:
            yield traffic.answers
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def recovery(url: str, video: bytes, since: float) -> tuple[float | None, float | None]:
    """Seconds from `since` until the service is ready, and until it answers `CONSECUTIVE` videos in a row."""
    ready_s, row = None, 0
    headers = {"Content-Type": "application/octet-stream"}
    async with httpx.AsyncClient(base_url=url, timeout=RECOVERY_LIMIT_S, verify=False) as http:
        while (elapsed_s := time.monotonic() - since) < RECOVERY_LIMIT_S:
            try:
                if ready_s is None and (await http.get("/readyz")).is_success:
                    ready_s = elapsed_s
                answer = await http.post("/v1/classify", content=video, headers=headers)
                row = row + 1 if answer.is_success else 0
            except httpx.TransportError:
                row = 0
            if row == CONSECUTIVE and ready_s is not None:
                return ready_s, time.monotonic() - since
            await asyncio.sleep(watch.POLL_S)
    return ready_s, None


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on its own small file system, or a plain folder if mounting is not permitted."""
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def limited(pid: int, kind: int, soft: int) -> Iterator[None]:
    """Lower a soft resource limit of a running process during the block."""
    process = psutil.Process(pid)
    before: tuple[int, int] = process.rlimit(kind)
    process.rlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        process.rlimit(kind, before)


@contextmanager
def no_descriptors(pid: int, _disk: Path) -> Iterator[None]:
    """Leave the service no free file descriptor."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    with limited(pid, resource.RLIMIT_NOFILE, min(set(range(len(used) + 1)) - used)):
        yield


@contextmanager
def no_memory(pid: int, _disk: Path) -> Iterator[None]:
    """Leave the main process no address space beyond what it already has."""
    with limited(pid, resource.RLIMIT_AS, psutil.Process(pid).memory_info().vms):
        yield


@contextmanager
def full_disk(pid: int, disk: Path) -> Iterator[None]:
    """Fill the disk for temporary files; without such a disk, forbid the service to write files."""
    if not disk.is_mount():
        with limited(pid, resource.RLIMIT_FSIZE, 0):
            yield
        return
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_workers(pid: int, _disk: Path) -> Iterator[None]:
    """Kill every decode worker as soon as it exists."""
    killer = subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            "while :; do for server in $(pgrep -P $0); do pkill -KILL -P $server; done; sleep $1; done",
            str(pid),
            str(KILL_INTERVAL_S),
        ]
    )
    try:
        yield
    finally:
        killer.kill()
        killer.wait()


@contextmanager
def no_fork_server(pid: int, _disk: Path) -> Iterator[None]:
    """Kill the fork server, and with it all decode workers."""
    for child in psutil.Process(pid).children():
        child.send_signal(signal.SIGKILL)
    yield


Fault = Callable[[int, Path], Any]
FAULTS: dict[str, Fault] = {
    "descriptors": no_descriptors,
    "memory": no_memory,
    "disk": full_disk,
    "workers": no_workers,
    "fork server": no_fork_server,
}


def _post(videos: tuple[bytes, ...]) -> Post:
    return Post(VALID, "200", 1.0, videos)


def counts(answers: Counter[tuple[str, str]]) -> dict[str, int]:
    """Number of answers by outcome."""
    return {outcome: number for (_, outcome), number in sorted(answers.items())}


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        (
            item["fault"],
            ", ".join(f"{number} x {outcome}" for outcome, number in item["during"].items()) or "none",
            _seconds(item["ready_s"]),
            _seconds(item["recovered_s"]),
            "yes" if item["before"] == item["after"] else "no",
        )
        for item in document["faults"]
    ]
    head = ("exhausted", "answers during the fault", "ready after s", "answers after s", "same resources")
    return f"""# Resource exhaustion

Each resource was unavailable for {document["seconds"]:g} s while {document["requests_per_s"]:.2g} valid
videos per second were posted, each with {VIEWS["clips"]} clips. Times count from the end of the fault; the
limit is {RECOVERY_LIMIT_S:g} s.
Command: `python -m benchmarks.chaos`.
{report.described_machine(document["machine"])}

{report.table(head, rows)}"""


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    typer.run(main)

"""Soak test: mixed valid and invalid requests at 80 % of the capacity for a long time.

    python -m benchmarks.soak --minutes 10

Clients post valid videos, truncated ones, garbage, audio files, wrong media types and oversized bodies at
random times (Poisson process). Some clients disconnect, and decode workers are killed at intervals. Every
request must get the expected answer, memory must not grow, and the resources held at the end must equal those
at the start. The exit status is 1 if a fault was found.

The capacity is the rate of a closed loop of the same requests just before the run. If other processes use the
machine during the run, the load may exceed the capacity, and rejections are correct. Therefore the rate is
measured again at the end, and the report states whether the machine was quiet.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.common.processes import tree
from benchmarks.serving_race.figures import arrivals
from benchmarks.soak import watch
from benchmarks.soak.report import Rates, Soak, as_text, document_of
from benchmarks.soak.requests import MAX_UPLOAD_BYTES, Post, posts
from benchmarks.soak.traffic import Traffic
from benchmarks.soak.watch import Held, Watch
from model_export.progress import counting

NAME = "soak"
CALLERS = 4  # number of callers in the closed loop that measures the capacity
# Callers of a burst before the run. Allocators keep the memory of the highest concurrency so far, and random
# arrivals would raise it again and again; after a large burst, any further growth is a leak.
BURST = 32
PROGRESS_S = 5.0


@dataclass(frozen=True)
class SoakExtent:
    """Duration and load of a run."""

    minutes: float
    load: float
    closed_s: float
    kill_every_s: float


def main(
    models: Annotated[
        Path | None, typer.Option(help="Model packages; default: the bundled demo model.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="Duration of the run.")] = 10.0,
    load: Annotated[float, typer.Option(min=0.05, help="Share of the measured closed-loop rate.")] = 0.8,
    closed_seconds: Annotated[float, typer.Option(min=0.5, help="Duration of measuring that rate.")] = 15.0,
    kill_every: Annotated[
        float, typer.Option(min=0.2, help="Seconds between kills of decode workers.")
    ] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Run the soak test and report the faults."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        material = posts(Path(scratch, "clips"))
        extent = SoakExtent(minutes, load, closed_seconds, kill_every)
        document = run(models, material, extent, Path(scratch, "tmp"))
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    for fault in document["faults"]:
        console.print(f"fault: {fault}", highlight=False, style="red")
    if document["faults"]:
        raise typer.Exit(1)


def run(models: Path | None, material: Sequence[Post], extent: SoakExtent, temporary: Path) -> dict[str, Any]:
    """Start a service, soak it, stop it and return the report's document.

    Raises:
        ServiceFailed: the service does not become ready.
    """
    temporary.mkdir()
    settings = {
        "BLVNET_MAX_UPLOAD_MB": str(MAX_UPLOAD_BYTES / 1e6),
        "BLVNET_LOG_LEVEL": "error",
        "TMPDIR": str(temporary),
    }
    found: Soak | None = None
    faults: list[str] = []
    try:
        with serving.service(models, settings) as service:
            found = asyncio.run(soaked(service, material, extent, temporary))
            processes = tree(service.pid)
    except serving.ServiceFailed as exc:
        if found is None:
            raise
        faults.append(str(exc))
    assert found is not None
    faults += [f"process {pid} is still running" for pid in watch.left_of(processes)]
    faults += [f"temporary file {path.name} was not removed" for path in temporary.iterdir()]
    settled = {"minutes": extent.minutes, "machine": report.machine()}
    return settled | document_of(found, material, faults)


async def soaked(
    service: serving.ServiceProcess, material: Sequence[Post], extent: SoakExtent, temporary: Path
) -> Soak:
    """Send a burst, measure the capacity, run the load, and measure again."""
    await capacity(service, material, extent, BURST)
    before_rate = await capacity(service, material, extent)
    size = len(watch.workers(service.pid))
    before, seen = Held.by(service.pid, temporary), Watch(service.pid)
    times = arrivals(before_rate * extent.load, extent.minutes * 60)
    async with Traffic(service.url, material) as traffic:
        await traffic.learn()
        beside = [
            asyncio.create_task(seen.sample_memory()),
            asyncio.create_task(seen.sample_others()),
            asyncio.create_task(seen.kill_workers(size, extent.kill_every_s)),
        ]
        await counted(traffic.open_loop(times), traffic, len(times))
        for task in beside:
            task.cancel()
        for result in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    await watch.at_rest(service.url, service.pid)
    after = await Held.again(before, service.url, service.pid, temporary)
    restarts = watch.metrics(service.url)[watch.RESTARTS]
    after_rate = await capacity(service, material, extent)
    rates = Rates(before_rate, after_rate, extent.load)
    return Soak(rates, traffic.answers, traffic.good_s, seen, before, after, restarts)


async def capacity(
    service: serving.ServiceProcess, material: Sequence[Post], extent: SoakExtent, callers: int = CALLERS
) -> float:
    """Rate of a closed loop of the same mix of requests, in requests/s."""
    async with Traffic(service.url, material) as traffic:
        rate = await traffic.closed_loop(callers, extent.closed_s)
    await watch.at_rest(service.url, service.pid)
    return rate


async def counted(soaking: Coroutine[Any, Any, None], traffic: Traffic, total: int) -> None:
    """Show the progress of the run."""
    task, shown = asyncio.ensure_future(soaking), 0
    with counting("requests", total) as tick:
        while not task.done():
            await asyncio.wait([task], timeout=PROGRESS_S)
            tick(min(traffic.answers.total(), total) - shown)
            shown = min(traffic.answers.total(), total)
    await task

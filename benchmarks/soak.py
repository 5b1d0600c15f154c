"""Does the service stay well for long? Mixed good and bad clips at 80 % of what it can do, and some trouble.

    python -m benchmarks.soak --minutes 10

Callers post good clips, truncated ones, garbage, sound without a picture, wrong types and too much, at the
times of a Poisson process; some hang up; now and then a decode worker is killed. Every request has to get the
answer that it deserves. Memory of all processes is watched, and what is held at the end has to be what was
held at the start. The exit status is 1 when anything was wrong.

The 80 % are of what a closed loop of the same callers got just before. If others take the cores meanwhile,
that was too much, and refusals are what the service is made for; so the rate is measured again at the end,
others are watched all the time, and the report says when the machine was not quiet.
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

from benchmarks import report, serving
from benchmarks.race.figures import arrivals
from benchmarks.race.processes import tree
from benchmarks.soaking import watch
from benchmarks.soaking.material import MAX_UPLOAD_BYTES, Post, posts
from benchmarks.soaking.report import Rates, Soak, as_text, document_of
from benchmarks.soaking.traffic import Traffic
from benchmarks.soaking.watch import Held, Watch
from model_export.progress import counting

NAME = "soak"
CALLERS = 4  # of the closed loop that measures what the service can do
# Of the crowd that comes first. Random arrivals bring ever more at once, if seldom, and an allocator keeps
# what the most took; after a crowd that is behind it, and memory that still grows is lost.
CROWD = 32
PROGRESS_S = 5.0


@dataclass(frozen=True)
class Extent:
    """How long, and how much."""

    minutes: float
    load: float
    closed_s: float
    kill_every_s: float


def main(
    models: Annotated[
        Path | None, typer.Option(help="Model packages; the bundled demo model otherwise.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 10.0,
    load: Annotated[float, typer.Option(min=0.05, help="Share of the measured closed-loop rate.")] = 0.8,
    closed_seconds: Annotated[float, typer.Option(min=0.5, help="Of measuring that rate.")] = 15.0,
    kill_every: Annotated[float, typer.Option(min=0.2, help="Seconds between killed workers.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = report.RESULTS,
) -> None:
    """Soak the service, and say what was wrong."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        material = posts(Path(scratch, "clips"))
        extent = Extent(minutes, load, closed_seconds, kill_every)
        document = run(models, material, extent, Path(scratch, "tmp"))
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    for fault in document["faults"]:
        console.print(f"wrong: {fault}", highlight=False, style="red")
    if document["faults"]:
        raise typer.Exit(1)


def run(models: Path | None, material: Sequence[Post], extent: Extent, temporary: Path) -> dict[str, Any]:
    """The whole life of a service.

    Raises:
        ServiceFailed: it does not become ready.
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
    faults += [f"left behind: process {pid}" for pid in watch.left_of(processes)]
    faults += [f"left behind: {path.name}" for path in temporary.iterdir()]
    settled = {"minutes": extent.minutes, "machine": report.machine()}
    return settled | document_of(found, material, faults)


async def soaked(service: serving.Service, material: Sequence[Post], extent: Extent, temporary: Path) -> Soak:
    """Let a crowd in, measure what it can do, soak it, and measure again."""
    await carried(service, material, extent, CROWD)
    before_rate = await carried(service, material, extent)
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
    after_rate = await carried(service, material, extent)
    rates = Rates(before_rate, after_rate, extent.load)
    return Soak(rates, traffic.answers, traffic.good_s, seen, before, after, restarts)


async def carried(
    service: serving.Service, material: Sequence[Post], extent: Extent, callers: int = CALLERS
) -> float:
    """Requests a second of a closed loop of the same mix: what the service carries of it at that time."""
    async with Traffic(service.url, material) as traffic:
        rate = await traffic.closed_loop(callers, extent.closed_s)
    await watch.at_rest(service.url, service.pid)
    return rate


async def counted(soaking: Coroutine[Any, Any, None], traffic: Traffic, total: int) -> None:
    """Show how far it is."""
    task, told = asyncio.ensure_future(soaking), 0
    with counting("requests", total) as tick:
        while not task.done():
            await asyncio.wait([task], timeout=PROGRESS_S)
            tick(min(traffic.answers.total(), total) - told)
            told = min(traffic.answers.total(), total)
    await task


if __name__ == "__main__":
    typer.run(main)

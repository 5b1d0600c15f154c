"""The commands: measure replicas and compare them with the simulation, and plan for a load."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import report
from benchmarks.scaling import measure
from benchmarks.scaling.simulation import (
    LoadResult,
    ReplicaSettings,
    Simulation,
    StageCosts,
    poisson,
)
from benchmarks.soak.requests import good_clips
from model_export.progress import counting
from service.errors import BlvnetError
from service.machine.resources import usable_cores

NAME = "scaling"
COUNTS = (1, 2, 4)
# Offered loads as multiples of the cores' capacity: comfortable, busy, and too high.
LOADS = (0.5, 0.8, 1.6)
DAY_S = 86_400
# Clips do not arrive evenly over a day: the busiest hour has this multiple of the mean.
PEAK = 2.5
# Share of a replica's capacity that a plan uses, so that bursts are not refused.
UTILISATION = 0.7
# Plans on the page: a million clips per day, and a thousand per second.
PLANNED_PEAKS = (1e6 / DAY_S * PEAK, 1000.0)
PLANNED_CORES = 8
START, END = "<!-- written by python -m benchmarks.scaling measure -->", "<!-- end -->"

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command("measure")
def measure_command(
    clip: Annotated[
        Path | None, typer.Option(help="The video to post; by default four seconds at 320x240.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Duration of each load.")] = 20.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
    page: Annotated[Path | None, typer.Option(help="A page to write the tables into, with plans.")] = None,
) -> None:
    """Measure 1, 2 and 4 replicas on this machine under three loads, and simulate the same."""
    if clip is None:
        with tempfile.TemporaryDirectory() as folder:
            video = good_clips(Path(folder))[0]
    else:
        video = clip.read_bytes()
    cores = usable_cores()
    facts = measure.single(video)
    rows = []
    with counting("loads", len(COUNTS) * len(LOADS)) as tick:
        for count in COUNTS:
            capacity = capacity_per_s(facts.times, measure.REPLICA, count, cores)
            with measure.replicas(count) as urls:
                for share in LOADS:
                    arrivals = list(poisson([share * capacity], seconds))
                    simulation = Simulation(
                        facts.times, measure.REPLICA, replicas=count, cores=cores, shared=True
                    )
                    measured = measure.load(urls, video, arrivals, seconds)
                    simulated = simulation.run(arrivals, seconds)
                    rows.append(
                        {
                            "replicas": count,
                            "load": share,
                            "offered_per_s": len(arrivals) / seconds,
                            "measured": figures(measured),
                            "simulated": figures(simulated),
                        }
                    )
                    tick(1)
    document = {
        "facts": asdict(facts),
        "cores": cores,
        "seconds": seconds,
        "rows": rows,
        "machine": report.machine(),
    }
    report.write(NAME, document, text := as_text(document), out)
    if page is not None:
        plans = (plan_text(asdict(facts), per_s, PLANNED_CORES) for per_s in PLANNED_PEAKS)
        tables = "\n\n".join([text.partition("\n\n")[2], *(f"```text\n{plan}\n```" for plan in plans)])
        page.write_text(report.placed(page.read_text(encoding="utf-8"), tables, START, END), encoding="utf-8")
    print(text)


@app.command()
def plan(
    rate: Annotated[float | None, typer.Option(min=0.01, help="Clips per second at the peak.")] = None,
    per_day: Annotated[float | None, typer.Option(min=1, help="Clips per day.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores of a replica.")] = 4,
    results: Annotated[Path, typer.Option(help="Folder with the results of `measure`.")] = report.RESULTS,
) -> None:
    """Print the number of replicas that a load needs, and simulate a minute of it."""
    if (rate is None) == (per_day is None):
        raise typer.BadParameter("give either --rate or --per-day")
    peak = rate if rate is not None else (per_day or 0) / DAY_S * PEAK
    path = results / f"{NAME}.json"
    try:
        facts = json.loads(path.read_text())["facts"]
    except OSError as exc:
        raise BlvnetError(f"{path}: {exc.strerror}; run `python -m benchmarks.scaling measure`") from exc
    print(plan_text(facts, peak, cores))


def plan_text(facts: dict[str, Any], peak: float, cores: int) -> str:
    """Number of replicas for a peak of clips per second, and the figures of a simulation with them."""
    times = StageCosts(**facts["times"])
    settings = ReplicaSettings(decode_workers=cores, inference_threads=cores, burst=8 * cores)
    count = math.ceil(peak / (capacity_per_s(times, settings, 1, cores) * UTILISATION))
    fixed = Simulation(times, settings, replicas=count, cores=cores).run(poisson([peak], 60.0), 60.0)
    clip_bytes = facts["clip_bytes"]
    return f"""\
peak           {peak:,.1f} clips/s
processor      {peak * times.total_s:,.1f} cores busy at the peak
replicas       {count} of {cores} cores, {UTILISATION:.0%} busy at the peak
memory         {count * facts["pss_bytes"] / 1e9:,.1f} GB
uploads        {peak * clip_bytes * 8 / 1e6:,.1f} Mbit/s, {clip_bytes} bytes a clip
at the peak    {described(fixed)}"""


def capacity_per_s(times: StageCosts, settings: ReplicaSettings, replicas: int, cores: int) -> float:
    """The highest rate of replicas on one machine, limited by the busiest stage or by the cores."""
    stages = (
        (times.http_s, 1),
        (times.decode_s, settings.decode_workers),
        (times.inference_s, settings.inference_threads),
    )
    own = min(places / time_s for time_s, places in stages if time_s > 0)
    return min(replicas * own, cores / times.total_s)


def figures(outcome: LoadResult) -> dict[str, float]:
    """Rate, latencies and the share of rejected requests."""
    return {
        "rate": outcome.rate,
        "p50_ms": outcome.latency_s(0.5) * 1e3,
        "p99_ms": outcome.latency_s(0.99) * 1e3,
        "refused": outcome.refused_share,
    }


def described(outcome: LoadResult) -> str:
    """The figures of an outcome in one line."""
    return (
        f"{outcome.rate:,.1f} answers/s, p50 {outcome.latency_s(0.5) * 1e3:.0f} ms, "
        f"p99 {outcome.latency_s(0.99) * 1e3:.0f} ms, {outcome.refused_share:.1%} refused"
    )


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    times = StageCosts(**document["facts"]["times"])
    head = ("replicas", "offered/s", "answers/s", "simulated", "p50 ms", "simulated", "p99 ms", "simulated",
            "refused", "simulated")  # fmt: skip
    rows = []
    for row in document["rows"]:
        cells = [str(row["replicas"]), f"{row['offered_per_s']:.1f}"]
        for name, form in (
            ("rate", "{:.1f}"),
            ("p50_ms", "{:.0f}"),
            ("p99_ms", "{:.0f}"),
            ("refused", "{:.0%}"),
        ):
            cells += [form.format(row["measured"][name]), form.format(row["simulated"][name])]
        rows.append(cells)
    facts = document["facts"]
    return f"""# Scaling

Replicas of one decode process and one inference thread, all on the same {document["cores"]} cores with the
load generator; requests arrive as a Poisson process and go to the replicas in turn. The simulation knows only
what one clip costs an idle replica: {times.http_s * 1e3:.1f} ms for HTTP, {times.decode_s * 1e3:.1f} ms for
decoding, {times.inference_s * 1e3:.1f} ms for inference. A replica starts in {facts["start_s"]:.1f} s and
takes {facts["pss_bytes"] / 1e6:.0f} MB. Command: `python -m benchmarks.scaling measure`.
{report.described_machine(document["machine"])}

{report.table(head, rows)}"""

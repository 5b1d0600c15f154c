"""The paper's questions, answered by training its networks and their baselines on generated data.

    python -m benchmarks.study                          every run without a result, then the report
    python -m benchmarks.study --list                   the rows, and the number of their finished runs
    python -m benchmarks.study --rows 'events/*'        the rows with these names
    python -m benchmarks.study --rows 'real/*' --gestures DIR
    python -m benchmarks.study --latency                the latency of all networks, then the report
    python -m benchmarks.study --report                 docs/study.md from the results, without training
    python -m benchmarks.study --quick                  a small version of every step, in another folder

A run takes up to twenty minutes of one core, and all of them many hours. Each result is appended to the file
of its row in benchmarks/results/study as soon as the run ends. Ctrl-C or SIGTERM keeps the state of the
current run, and the next call continues it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from threading import Event
from typing import Annotated

import torch
import typer

from benchmarks.common.report import RESULTS, table
from benchmarks.study.latency import measure_latencies
from benchmarks.study.pictures import draw_pictures
from benchmarks.study.plan import Row, rows
from benchmarks.study.report import page_text
from benchmarks.study.results import Results
from benchmarks.study.runs import FULL, QUICK, Budget, Folders, train_run
from model_export.progress import ProgressReporter
from model_export.training.preparation import freed_memory_kept
from model_export.training.trainer import stopping_on_signals
from service.errors import BlvnetError

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
QUICK_ROWS = (
    "events/blvnet-tam",
    "events/blvnet",
    "frames/blvnet-tam-4-progressive",
    "frames/blvnet-tam-8-progressive",
)


def main(
    chosen: Annotated[
        list[str] | None,
        typer.Option("--rows", help="Names or patterns of rows; default: all but real ones."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the rows and stop.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the page from the results.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure the latency of all networks instead of training.")
    ] = False,
    quick: Annotated[
        bool, typer.Option(help="Try the whole path with tiny runs, in a temporary folder.")
    ] = False,
    gestures: Annotated[
        Path | None, typer.Option(help="Real footage, DIR/{train,val}/LABEL/*.mp4.", exists=True)
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Start no run after this time.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
    work: Annotated[Path, typer.Option(help="Folder of rendered clips and checkpoints.")] = Path(
        "runs/study"
    ),
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS / "study",
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Train the networks of the study and write docs/study.md."""
    torch.set_num_threads(threads)
    plan = rows()
    if quick:
        run_quick(plan)
        return
    done = Results(results, plan)
    if listed:
        print(listing(plan, done))
        return
    try:
        if latency:
            with ProgressReporter() as reporter:
                measure_latencies(plan, results, reporter)
        elif not report:
            selected = [row for row in plan if is_chosen(row, chosen)]
            if not selected:
                raise typer.BadParameter(f"no row has a name like {', '.join(chosen or [])}; see --list")
            folders = Folders(work / "clips", work / "runs", gestures)
            with stopping_on_signals() as stop:
                run_rows(selected, done, FULL, folders, stop, minutes)
        draw_pictures(plan, done, page.parent)
        page.write_text(page_text(plan, done, page.parent), encoding="utf-8")
    except BlvnetError as error:
        raise typer.BadParameter(str(error)) from error


def run_rows(
    selected: Sequence[Row],
    done: Results,
    budget: Budget,
    folders: Folders,
    stop: Event,
    minutes: float | None = None,
) -> None:
    """Run the missing runs of each row, in order, until `stop` is set or the time is up."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    with ProgressReporter() as reporter, freed_memory_kept():
        for row in selected:
            if not done.rates(row):
                reporter.message(
                    f"{row.name} waits for the learning rate of {row.rate_from or row.starts_from}"
                )
            while (missing := done.missing(row)) and not stop.is_set():
                if end is not None and time.monotonic() > end:
                    return
                key = missing[0]
                reporter.message(f"{row.name}: {key.name}")
                result = train_run(row, key, budget, folders, reporter, stop)
                if result is not None:
                    done.add(row, result)
                    reporter.message(f"{row.name}: {key.name}, test top-1 {result['top1']:.1%}")


def run_quick(plan: Sequence[Row]) -> None:
    """Run some rows with tiny budgets, draw their pictures in a temporary folder, and print their page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = [
            replace(row, seeds=2 if row.group == "events" else 1, epochs=1, rates=row.rates[:1])
            for row in plan
        ]
        done = Results(folder / "results", small)
        selected = [row for row in small if row.name in QUICK_ROWS]
        run_rows(selected, done, QUICK, Folders(folder / "clips", folder / "runs", None), Event())
        with ProgressReporter() as reporter:
            measure_latencies(selected, done.folder, reporter, rounds=1)
        draw_pictures(small, done, folder)
        print(page_text(small, done, folder))


def is_chosen(row: Row, patterns: Sequence[str] | None) -> bool:
    """Whether a row runs; rows on real footage run only if named, because they need a folder."""
    if patterns is None:
        return row.task is not None
    return any(fnmatch(row.name, pattern) for pattern in patterns)


def listing(plan: Sequence[Row], done: Results) -> str:
    """The rows as a table, with the number of their finished runs."""
    head = ("row", "questions", "frames", "runs done", "seeds judged", "seeds")
    return table(
        head,
        [
            (
                row.name,
                ", ".join(row.questions),
                f"{row.frames}",
                f"{len(done.of(row))}",
                f"{len(done.judged(row))}",
                f"{row.seeds}",
            )
            for row in plan
        ],
    )

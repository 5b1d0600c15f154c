"""`blvnet bench`: speed and accuracy of a package on each engine of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service.engines.providers import Provider
from service.machine.resources import usable_cores

MEGA = 1e6
MS = 1e3
MAX_BATCH = 256


def bench(
    package: Annotated[
        Path,
        typer.Argument(
            metavar="PACKAGE", help="Folder MODELS/NAME/VERSION, or MODELS/NAME for the highest version."
        ),
    ],
    provider: Annotated[
        list[Provider] | None,
        typer.Option(metavar="NAME", help="Provider to measure; repeatable; default: all installed."),
    ] = None,
    batches: Annotated[str, typer.Option(metavar="N,...", help="Batch sizes.")] = "1,2,4,8",
    threads: Annotated[
        str | None, typer.Option(metavar="N,...", help="Threads per run; default: 1 and all cores.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Repeats of each workload.")] = 5,
    turn: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="Minimum duration of a repeat.")
    ] = 0.5,
    loads: Annotated[
        int, typer.Option(min=1, max=100, help="Number of times that each workload is loaded.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a package on every installed engine, side by side.

    Each engine runs in a process of its own, which is stopped while the others run; they alternate in rounds.
    Speed is also given as a multiple of this machine's float32 matrix product, which is measured in between.

    Example: blvnet bench models/mine --batches 1,4
    """
    batch_sizes = _numbers("--batches", batches, MAX_BATCH)
    cores = usable_cores()
    thread_counts = _numbers("--threads", threads, cores) if threads else sorted({1, cores})
    from service.bench.measurement import Plan
    from service.bench.package import find_package, measure_package
    from service.bench.progress import show_steps

    folder = find_package(package)  # before there is a bar
    chosen = () if provider is None or Provider.AUTO in provider else tuple(provider)
    with show_steps(Console(stderr=True)) as on_step:
        document = measure_package(
            folder, chosen, thread_counts, batch_sizes, Plan(rounds, turn, loads), on_step
        )
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print_tables(document)
    failures = [bool(result["error"]) for result in document["results"]]
    # Only requested providers must work; others may need a CPU with different instructions.
    if all(failures) or (chosen and any(failures)):
        raise typer.Exit(1)


def _numbers(option: str, text: str, highest: int) -> list[int]:
    """Parse `1,2,4` into sorted unique numbers."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= highest for word in words):
        raise typer.BadParameter(f"{option} must be numbers from 1 to {highest} with commas, it is {text!r}.")
    return sorted({int(word) for word in words})


def _print_tables(document: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    package, machine = document["package"], document["machine"]
    console.print(
        f"{package['name']} {package['version']} ({package['architecture']}, {package['precision']})"
        f" on {machine['cores']} cores of {machine['cpu']}"
    )
    console.print(_speeds(document))
    console.print(_qualities(document))
    for result in document["results"]:
        if result["error"]:
            console.print(Text(f"{result['contender']}: {result['error']}", style="red"))


def _speeds(document: dict[str, Any]) -> Table:
    """A row for the matrix product, then one for each workload and batch size."""
    heads = ("threads", "batch", "ms", "quartiles", "clips/s", "GFLOP/s", "x product")
    table = Table("engine", *(Column(head, justify="right", no_wrap=True) for head in heads), box=SIMPLE_HEAD)
    for product in document["matrix_product"]:
        rate = product["gflops"] and product["gflops"]["median"]
        table.add_row("matrix product", str(product["threads"]), "", "", "", "", _number(rate, ".0f"))
    table.add_section()
    for result in document["results"]:
        for entry in result["batches"]:
            table.add_row(result["contender"], str(result["threads"]), *_figures(entry))
        table.add_section()
    return table


def _figures(entry: dict[str, Any]) -> Iterator[str]:
    latency = entry["latency_s"]
    yield str(entry["batch"])
    yield f"{latency['median'] * MS:.1f}"
    yield f"{latency['lower_quartile'] * MS:.1f}-{latency['upper_quartile'] * MS:.1f}"
    yield f"{entry['clips_per_s']:.1f}"
    yield _number(entry["gflops"], ".0f")
    yield _number(entry["times_matrix_product"], ".2f")


def _qualities(document: dict[str, Any]) -> Table:
    """A row for each workload: figures that do not depend on the batch size, and memory at the largest."""
    heads = ("threads", "first answer s", "peak MB", "difference", "same top-1", "agrees")
    table = Table("engine", *(Column(head, justify="right", no_wrap=True) for head in heads), box=SIMPLE_HEAD)
    table.caption = f"difference, same top-1: from {document['reference']}"
    for result in document["results"]:
        agreement = result["agreement"] or {}
        peak_bytes = max((entry["peak_memory_bytes"] for entry in result["batches"]), default=None)
        table.add_row(
            result["contender"],
            str(result["threads"]),
            _number(result["load_s"], ".2f"),
            _number(peak_bytes and peak_bytes / MEGA, ".0f"),
            _number(agreement.get("difference"), ".1e"),
            _number(agreement.get("same_top1"), ".0%"),
            _verdict(agreement.get("agrees")),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _verdict(agrees: bool | None) -> str | Text:
    if agrees is None:
        return ""
    return "yes" if agrees else Text("no", style="red")

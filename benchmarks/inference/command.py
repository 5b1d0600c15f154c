"""Compare PyTorch, a plain ONNX export and our packages on every engine, relative to the machine's limit.

    python -m benchmarks.inference [--networks NAME ...] [--full | --quick] [--compiled] [--missing]

Networks have random weights (`benchmarks.inference.plain`), as speed does not depend on them. For each
network, the benchmark compares its plain form (`model_export.networks.unfolded`) in eager PyTorch, by
`torch.compile`, and in onnxruntime as torch's exporter writes it; and packages as `blvnet export` writes
them, in every precision, on every installed engine. All of them, and the machine's matrix product, take turns
(`service.bench.measurement`).

Results are written after each network, so `--missing` continues an interrupted run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.common import report
from benchmarks.inference import pictures as inference_pictures
from benchmarks.inference import report as inference_report
from benchmarks.inference.networks import (
    MAIN,
    NETWORKS,
    Prepared,
    packages,
    plain_forms,
    prepare,
    reference_for,
    write_clips,
)
from benchmarks.inference.operators import operator_times
from model_export.export.precision import BOUNDS, Precision
from service.bench.figures import entry, product_entry
from service.bench.machine import machine, matrix_product
from service.bench.measurement import Plan, WorkloadResult, measure_groups
from service.bench.progress import show_steps
from service.engines.batch_sizes import repeated
from service.engines.providers import installed_providers
from service.machine.resources import usable_cores
from service.packages.manifest import GRAPH_FILE
from service.subprocesses.workload import Workload

NAME = "inference"
LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end -->\n"
FULL_BATCHES = (1, 2, 4, 8)
GPU = ("cuda", "tensorrt")


@dataclass(frozen=True)
class NetworkExtent:
    """The extent of the measurements of a network.

    Attributes:
        batches: batch sizes.
        threads: numbers of threads; each is measured in its own group.
        compiled: whether to measure `torch.compile`, which takes a minute or more per batch size.
        plan: duration of the measurement.
    """

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    compiled: bool
    plan: Plan


def main(
    networks: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure only this network; repeatable.")
    ] = None,
    batches: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Batch size; repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Threads per run; repeatable.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="All batch sizes, one thread and all, torch.compile everywhere; takes hours."
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compiled", help=f"Measure torch.compile for every network instead of {MAIN} only."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few short repeats, for development.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Skip networks that already have these results.")
    ] = False,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="Measure plain forms and packages in separate groups to save memory."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = report.RESULTS,
    page: Annotated[
        Path, typer.Option(help="Page that contains the tables; its folder receives the figures.")
    ] = PAGE,
) -> None:
    """Measure every way to run the networks; by default one clip on all cores."""
    chosen = _chosen(networks)
    document = _stored(out)
    for name in chosen:
        extent = _extent(name, batches, threads, full=full, compiled=compiled, quick=quick)
        if missing and document["networks"].get(name, {}).get("extent") == _as_json(extent):
            continue
        networks_so_far = document["networks"] | {name: measure(name, extent, apart=apart)}
        document["networks"] = {
            known: networks_so_far[known] for known in NETWORKS if known in networks_so_far
        }
        write(document, out, page)


def measure(name: str, extent: NetworkExtent, *, apart: bool) -> dict[str, Any]:
    """Measure one network and return its entry in the results.

    All workloads of a group are in memory at the same time. With `apart`, plain forms and packages are
    measured in separate groups, each with its own matrix product.
    """
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, show_steps(console) as watch:
        folder, clips = Path(scratch) / "network", Path(scratch) / "clips"
        folder.mkdir()
        write_clips(clips)
        prepared = prepare(name, precisions(), folder, clips, partial(console.print, highlight=False))
        groups = [group for threads in extent.threads for group in _groups(prepared, extent, threads, apart)]
        inputs = repeated(prepared.question, max(extent.batches))
        results = measure_groups(groups, inputs, extent.plan, watch, prepared.question)
        return _described(prepared, extent, results) | {"apart": apart}


def _groups(prepared: Prepared, extent: NetworkExtent, threads: int, apart: bool) -> list[list[Workload]]:
    baselines = plain_forms(prepared, threads, extent.batches, compiled=extent.compiled)
    ours = packages(prepared, threads, extent.batches)
    groups = [baselines, ours] if apart else [baselines + ours]
    return [[matrix_product(threads), *group] for group in groups]


def _described(
    prepared: Prepared, extent: NetworkExtent, results: list[list[WorkloadResult]]
) -> dict[str, Any]:
    return {
        "machine": machine(LIBRARIES),
        "extent": _as_json(extent),
        "gmacs": prepared.gflop / 2,
        "matrix_product": [product_entry(product) for product, *_ in results],
        "results": [
            entry(result, product, reference_for(prepared, result))
            for product, *group in results
            for result in group
        ],
        "not_exported": {str(precision): reason for precision, reason in prepared.failures.items()},
        "operators": _operators(prepared, max(extent.threads)),
    }


def write(document: dict[str, Any], out: Path, page: Path) -> None:
    """Write the results so far, the tables of the page and its figures."""
    main_network = document["networks"].get(MAIN)
    if main_network is not None:
        document["ratios"] = [ratio.to_json() for ratio in inference_report.ratios(main_network)]
        inference_pictures.draw(MAIN, main_network, page.parent)
    text = inference_report.markdown(document)
    report.write(NAME, document, f"# Inference\n\n{text}", out)
    brief = inference_report.markdown(document, full=False)
    page.write_text(report.placed(page.read_text(encoding="utf-8"), brief, START, END), encoding="utf-8")


def precisions() -> list[Precision]:
    """The precisions to export on this machine; onnxruntime does not support float16 on CPUs."""
    has_half = bool({*GPU, "openvino"} & set(installed_providers()))
    return [precision for precision in BOUNDS if precision is not Precision.FP16 or has_half]


def _chosen(networks: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(networks or []) - set(NETWORKS))
    if unknown:
        raise typer.BadParameter(f"unknown network {', '.join(unknown)}; known: {', '.join(NETWORKS)}")
    return list(networks or NETWORKS)


def _extent(
    name: str,
    batches: Sequence[int] | None,
    threads: Sequence[int] | None,
    *,
    full: bool,
    compiled: bool,
    quick: bool,
) -> NetworkExtent:
    """The requested extent; default: one clip on all cores, a quarter of an hour for all networks."""
    cores = usable_cores()
    every = tuple(sorted({1, cores}, reverse=True))
    return NetworkExtent(
        batches=tuple(sorted(set(batches or (FULL_BATCHES if full else (1,))))),
        threads=tuple(threads or (every if full else (cores,))),
        compiled=full or compiled or (name == MAIN and not quick),
        plan=_plan(name, full=full, quick=quick),
    )


def _plan(name: str, *, full: bool, quick: bool) -> Plan:
    if quick:
        return Plan(rounds=2, repeat_s=0.1)
    if name == MAIN:
        return Plan(rounds=5, repeat_s=0.5, loads=2)
    return Plan(rounds=5 if full else 3, repeat_s=0.5)


def _as_json(extent: NetworkExtent) -> dict[str, Any]:
    """The extent as JSON, with lists instead of tuples, for comparison with stored results."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(extent) | {"plan": extent.plan.to_json()}))
    return found


def _operators(prepared: Prepared, threads: int) -> dict[str, dict[str, float]]:
    """Seconds per clip by operator, for the plain export and our graphs for onnxruntime."""
    graphs = {"plain": prepared.plain}
    graphs |= {
        str(precision): prepared.packages[precision] / GRAPH_FILE
        for precision in (Precision.FP32, Precision.INT8)
        if precision in prepared.packages
    }
    clips = repeated(prepared.question, 1)
    return {name: operator_times(graph, clips, threads) for name, graph in graphs.items()}


def _stored(out: Path) -> dict[str, Any]:
    """The stored results."""
    path = out / f"{NAME}.json"
    if not path.exists():
        return {"networks": {}}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document

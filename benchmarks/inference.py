"""How near the machine's limit inference is: PyTorch, plain export and our graphs on every engine.

    python -m benchmarks.inference [--networks NAME ...] [--full | --quick] [--compiled] [--missing]

Networks have made weights (`benchmarks.plain`), as speed does not depend on them. For each network these
compete: its plain form (`model_export.networks.reference`) in eager PyTorch, by `torch.compile`, and in
onnxruntime as torch's exporter writes it; and packages as `blvnet export` writes them, in every precision, on
every installed engine. All run in turns (`service.bench.race`), and with them the machine's matrix product.

Results are written after each network, so a run that was interrupted is carried on with `--missing`.
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

from benchmarks import inference_pictures, inference_report, report
from benchmarks.inference_networks import (
    MAIN,
    NETWORKS,
    Prepared,
    packages,
    plain_forms,
    prepare,
    reference_for,
    write_clips,
)
from benchmarks.operators import operator_times
from model_export.precision import BOUNDS, Precision
from service.bench.figures import entry, product_entry
from service.bench.machine import machine
from service.bench.matrix_product import matrix_product
from service.bench.progress import watching
from service.bench.race import Plan, Result, race
from service.contenders.contender import Contender
from service.manifest import GRAPH_FILE
from service.pipeline.cores import usable_cores
from service.runtime.batches import repeated
from service.runtime.providers import installed_providers

NAME = "inference"
LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
PAGE = Path(__file__).parents[1] / "docs" / "inference.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end -->\n"
FULL_BATCHES = (1, 2, 4, 8)
GPU = ("cuda", "tensorrt")


@dataclass(frozen=True)
class Extent:
    """How much is measured of a network.

    Attributes:
        batches: sizes of batches.
        threads: one heat for each.
        compiled: whether `torch.compile` takes part, which takes a minute or more for each batch size.
        plan: how long to look.
    """

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    compiled: bool
    plan: Plan


def main(
    networks: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; can be repeated.")
    ] = None,
    batches: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Clips in one run; can be repeated.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Threads of a run; can be repeated.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All batches, one thread and all, torch.compile everywhere: hours.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help=f"torch.compile for every network, and not for {MAIN} alone.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Short turns and few; for development.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only networks that have no result yet, or not this extent.")
    ] = False,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="Plain forms and packages in heats of their own: less memory at once."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = report.RESULTS,
    page: Annotated[
        Path, typer.Option(help="Page with the place for the tables; pictures lie beside it.")
    ] = PAGE,
) -> None:
    """Measure every way to run the networks, side by side; by default one clip on all cores."""
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


def measure(name: str, extent: Extent, *, apart: bool) -> dict[str, Any]:
    """Measure one network; its entry in the results.

    All contenders of a heat are in memory together. Where that is too much, plain forms and packages can be
    `apart`, each beside a matrix product of their own.
    """
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, watching(console) as watch:
        folder, clips = Path(scratch) / "network", Path(scratch) / "clips"
        folder.mkdir()
        write_clips(clips)
        prepared = prepare(name, precisions(), folder, clips, partial(console.print, highlight=False))
        heats = [heat for threads in extent.threads for heat in _heats(prepared, extent, threads, apart)]
        inputs = repeated(prepared.question, max(extent.batches))
        results = race(heats, inputs, extent.plan, watch, prepared.question)
        return _described(prepared, extent, results) | {"apart": apart}


def _heats(prepared: Prepared, extent: Extent, threads: int, apart: bool) -> list[list[Contender]]:
    rivals = plain_forms(prepared, threads, extent.batches, compiled=extent.compiled)
    ours = packages(prepared, threads, extent.batches)
    groups = [rivals, ours] if apart else [rivals + ours]
    return [[matrix_product(threads), *group] for group in groups]


def _described(prepared: Prepared, extent: Extent, results: list[list[Result]]) -> dict[str, Any]:
    return {
        "machine": machine(LIBRARIES),
        "extent": _as_json(extent),
        "gmacs": prepared.gflop / 2,
        "matrix_product": [product_entry(product) for product, *_ in results],
        "results": [
            entry(result, product, reference_for(prepared, result))
            for product, *heat in results
            for result in heat
        ],
        "not_exported": {str(precision): reason for precision, reason in prepared.failures.items()},
        "operators": _operators(prepared, max(extent.threads)),
    }


def write(document: dict[str, Any], out: Path, page: Path) -> None:
    """Write what there is so far: results, tables on the page, pictures beside it."""
    main_network = document["networks"].get(MAIN)
    if main_network is not None:
        document["ratios"] = [ratio.to_json() for ratio in inference_report.ratios(main_network)]
        inference_pictures.draw(MAIN, main_network, page.parent)
    text = inference_report.markdown(document)
    report.write(NAME, document, f"# Inference\n\n{text}", out)
    brief = inference_report.markdown(document, full=False)
    page.write_text(report.placed(page.read_text(encoding="utf-8"), brief, START, END), encoding="utf-8")


def precisions() -> list[Precision]:
    """Those that are worth a package on this machine: onnxruntime has no float16 on a processor."""
    has_half = bool({*GPU, "openvino"} & set(installed_providers()))
    return [precision for precision in BOUNDS if precision is not Precision.FP16 or has_half]


def _chosen(networks: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(networks or []) - set(NETWORKS))
    if unknown:
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; there are: {', '.join(NETWORKS)}")
    return list(networks or NETWORKS)


def _extent(
    name: str,
    batches: Sequence[int] | None,
    threads: Sequence[int] | None,
    *,
    full: bool,
    compiled: bool,
    quick: bool,
) -> Extent:
    """As asked for; else one clip on all cores, which for all networks takes a quarter of an hour."""
    cores = usable_cores()
    every = tuple(sorted({1, cores}, reverse=True))
    return Extent(
        batches=tuple(sorted(set(batches or (FULL_BATCHES if full else (1,))))),
        threads=tuple(threads or (every if full else (cores,))),
        compiled=full or compiled or (name == MAIN and not quick),
        plan=_plan(name, full=full, quick=quick),
    )


def _plan(name: str, *, full: bool, quick: bool) -> Plan:
    if quick:
        return Plan(rounds=2, turn_s=0.1)
    if name == MAIN:
        return Plan(rounds=5, turn_s=0.5, loads=2)
    return Plan(rounds=5 if full else 3, turn_s=0.5)


def _as_json(extent: Extent) -> dict[str, Any]:
    """Without tuples, which JSON gives back as lists."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(extent)))
    return found


def _operators(prepared: Prepared, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of one clip by operator: of the plain export, and of the graphs that are onnxruntime's own."""
    graphs = {"plain": prepared.plain}
    graphs |= {
        str(precision): prepared.packages[precision] / GRAPH_FILE
        for precision in (Precision.FP32, Precision.INT8)
        if precision in prepared.packages
    }
    clips = repeated(prepared.question, 1)
    return {name: operator_times(graph, clips, threads) for name, graph in graphs.items()}


def _stored(out: Path) -> dict[str, Any]:
    """The results that are there."""
    path = out / f"{NAME}.json"
    if not path.exists():
        return {"networks": {}}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


if __name__ == "__main__":
    typer.run(main)

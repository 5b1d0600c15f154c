"""Compare PyTorch, a plain export and our packages on an NVIDIA GPU, in float32 and float16.

    python -m benchmarks.inference_gpu [--networks NAME ...] [--batches N ...]

Networks and method are those of `benchmarks.inference`, with the GPU's float32 matrix product as the
reference. Times include copies to and from the GPU, as for real requests. Requires blvnet-serve[gpu,train],
torch with CUDA, and a C++ compiler for `torch.compile`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.common import report
from benchmarks.inference import report as inference_report
from benchmarks.inference.networks import (
    MAIN,
    NETWORKS,
    gpu_product,
    gpu_workloads,
    prepare,
    reference_for,
)
from model_export.export.precision import Precision
from service.bench.figures import entry, product_entry
from service.bench.machine import machine
from service.bench.measurement import Plan, measure_groups
from service.bench.progress import show_steps
from service.engines.batch_sizes import repeated
from service.engines.providers import installed_providers
from service.machine.resources import usable_cores

NAME = "inference_gpu"
LIBRARIES = ("numpy", "onnxruntime-gpu", "torch")
PAGE = Path(__file__).parents[1] / "docs" / "inference.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end of the GPU's -->\n"
BATCHES = (1, 8)
PRECISIONS = (Precision.FP32, Precision.FP16)


def main(
    networks: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Network; repeatable; default: {MAIN}.")
    ] = None,
    batches: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Batch size; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each workload.")] = 5,
    turn: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Shortest length of a turn.")] = 0.5,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep checkpoints and packages in this folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = report.RESULTS,
    page: Annotated[Path, typer.Option(help="Page that contains the tables.")] = PAGE,
) -> None:
    """Measure every way to run the networks on a GPU."""
    if "cuda" not in installed_providers():
        raise typer.BadParameter("onnxruntime has no CUDA here: pip install 'blvnet-serve[gpu]'")
    if not torch.cuda.is_available():
        raise typer.BadParameter("torch has no CUDA here")
    chosen = networks or [MAIN]
    if unknown := sorted(set(chosen) - set(NETWORKS)):
        raise typer.BadParameter(f"unknown network {', '.join(unknown)}; known: {', '.join(NETWORKS)}")
    sizes = tuple(sorted(set(batches or BATCHES)))
    document: dict[str, Any] = {"networks": {}}
    for name in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            folder = (keep or Path(scratch)) / name
            folder.mkdir(parents=True)
            document["networks"][name] = measure(name, sizes, Plan(rounds, turn), folder)
        write(document, out, page)


def measure(name: str, batches: tuple[int, ...], plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure one network, using an empty folder, and return its entry in the results."""
    console = Console(stderr=True)
    with show_steps(console) as watch:
        clips = folder / "clips"  # stays empty, because float precisions need no calibration
        prepared = prepare(name, PRECISIONS, folder, clips, partial(console.print, highlight=False))
        threads = usable_cores()
        group = [gpu_product(threads), *gpu_workloads(prepared, threads, batches)]
        inputs = repeated(prepared.question, max(batches))
        ((product, *results),) = measure_groups([group], inputs, plan, watch, prepared.question)
    return {
        "machine": machine(LIBRARIES),
        "gmacs": prepared.gflop / 2,
        "matrix_product": [product_entry(product)],
        "results": [entry(result, product, reference_for(prepared, result)) for result in results],
        "not_exported": {str(precision): reason for precision, reason in prepared.failures.items()},
    }


def write(document: dict[str, Any], out: Path, page: Path) -> None:
    """Write the results so far and the tables of the page."""
    text = markdown(document)
    report.write(NAME, document, f"# Inference on a GPU\n\n{text}", out)
    page.write_text(report.placed(page.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")


def markdown(document: dict[str, Any]) -> str:
    """A table for each network."""
    parts = []
    for name, network in document["networks"].items():
        facts = network["machine"]
        libraries = ", ".join(f"{library} {facts[library]}" for library in LIBRARIES if library in facts)
        parts.append(
            f"### {name} on a GPU\n\nMeasured on {facts['gpu']}, with {facts['cores']} cores of"
            f" {facts['cpu']}; {libraries}.\n\n{inference_report.network_text(network)}"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)

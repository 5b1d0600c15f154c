"""The inference benchmark on an NVIDIA GPU: PyTorch, plain export and our packages, in float32 and float16.

    python -m benchmarks.inference_gpu [--networks NAME ...] [--batches N ...]

The same networks and rules as `benchmarks.inference`; the measure is the GPU's own float32 matrix product.
Copies to the GPU and back are part of every time, as they are of a request's. Needs blvnet-serve[gpu,train],
a torch with CUDA, and a C++ compiler for `torch.compile`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks import inference_report, report
from benchmarks.inference_networks import (
    MAIN,
    NETWORKS,
    gpu_contenders,
    gpu_product,
    prepare,
    reference_for,
)
from model_export.precision import Precision
from service.bench.figures import entry, product_entry
from service.bench.machine import machine
from service.bench.progress import watching
from service.bench.race import Plan, race
from service.pipeline.cores import usable_cores
from service.runtime.batches import repeated
from service.runtime.providers import installed_providers

NAME = "inference_gpu"
LIBRARIES = ("numpy", "onnxruntime-gpu", "torch")
PAGE = Path(__file__).parents[1] / "docs" / "inference.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end of the GPU's -->\n"
BATCHES = (1, 8)
PRECISIONS = (Precision.FP32, Precision.FP16)


def main(
    networks: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Can be repeated; {MAIN} if not given.")
    ] = None,
    batches: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Clips in one run; can be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 5,
    turn: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Shortest length of a turn.")] = 0.5,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave checkpoints and packages in this folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = report.RESULTS,
    page: Annotated[Path, typer.Option(help="Page with the place for the tables.")] = PAGE,
) -> None:
    """Measure every way to run the networks on a GPU, side by side."""
    if "cuda" not in installed_providers():
        raise typer.BadParameter("onnxruntime has no CUDA here: pip install 'blvnet-serve[gpu]'")
    if not torch.cuda.is_available():
        raise typer.BadParameter("torch has no CUDA here")
    chosen = networks or [MAIN]
    if unknown := sorted(set(chosen) - set(NETWORKS)):
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; there are: {', '.join(NETWORKS)}")
    sizes = tuple(sorted(set(batches or BATCHES)))
    document: dict[str, Any] = {"networks": {}}
    for name in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            folder = (keep or Path(scratch)) / name
            folder.mkdir(parents=True)
            document["networks"][name] = measure(name, sizes, Plan(rounds, turn), folder)
        write(document, out, page)


def measure(name: str, batches: tuple[int, ...], plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure one network, its forms in an empty folder; its entry in the results."""
    console = Console(stderr=True)
    with watching(console) as watch:
        clips = folder / "clips"  # float precisions are not calibrated, so there need be none
        prepared = prepare(name, PRECISIONS, folder, clips, partial(console.print, highlight=False))
        threads = usable_cores()
        heat = [gpu_product(threads), *gpu_contenders(prepared, threads, batches)]
        inputs = repeated(prepared.question, max(batches))
        ((product, *results),) = race([heat], inputs, plan, watch, prepared.question)
    return {
        "machine": machine(LIBRARIES),
        "gmacs": prepared.gflop / 2,
        "matrix_product": [product_entry(product)],
        "results": [entry(result, product, reference_for(prepared, result)) for result in results],
        "not_exported": {str(precision): reason for precision, reason in prepared.failures.items()},
    }


def write(document: dict[str, Any], out: Path, page: Path) -> None:
    """Write what there is so far: results, and the tables on the page."""
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

"""The networks of the inference benchmark and the workloads of each."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.inference.plain import (
    CUDA,
    TorchArithmetic,
    export_plain,
    load_eager,
    write_random_checkpoint,
)
from model_export.export.pipeline import export
from model_export.export.plan import ExportRequest
from model_export.export.precision import AccuracyLimits, Precision
from model_export.networks.config import ModelConfig
from model_export.networks.registry import parse_architecture
from model_export.profile import profile_network
from model_export.progress import ProgressReporter
from model_export.synthetic.dataset import plan, write_dataset
from model_export.synthetic.labels import LABELS
from service.bench.figures import ExpectedOutputs
from service.bench.measurement import WorkloadResult
from service.bench.package import package_workloads
from service.errors import BlvnetError
from service.packages.manifest import read_manifest
from service.packages.probe_clips import probe_clips
from service.subprocesses.workload import Arrays, Workload

MAIN = "blvnet-tam-50-a2-b4-f8x2"
NETWORKS = (
    "blvnet-tam-mini-f8x2",
    MAIN,
    "blvnet-tam-50-a2-b4-f16x2",
    "blvnet-tam-101-a2-b4-f8x2",
    "tam-resnet-50-f8",
    "i3d-resnet-50-f8",
)
CLASSES = 174  # Something-Something
EAGER, COMPILED, PLAIN = (
    "PyTorch eager, plain form",
    "PyTorch compiled, plain form",
    "onnxruntime, plain export",
)
GPU_PROVIDERS = ("cuda", "tensorrt")
GPU_PRODUCT_SIZE = 8192  # 1.1 TFLOP, which takes tens of milliseconds
CLIPS = 6  # calibration videos; random weights need no more
# With random weights, int8 has no accuracy to lose.
ANY_ACCURACY = AccuracyLimits(max_drop=100, min_agreement=0)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A network on disk in all measured forms.

    Attributes:
        config: configuration of the network.
        gflop: 10^9 operations per clip.
        checkpoint: file with its weights.
        plain: file of the plain export.
        reference: PyTorch's answers to the probe clips.
        packages: packages by precision.
        failures: reasons why precisions could not be exported.
    """

    config: ModelConfig
    gflop: float
    checkpoint: Path
    plain: Path
    reference: ExpectedOutputs
    packages: dict[Precision, Path] = field(default_factory=dict)
    failures: dict[Precision, str] = field(default_factory=dict)

    @property
    def question(self) -> Arrays:
        """The probe clips."""
        return probe_clips(self.config.clip_spec())


def write_clips(folder: Path) -> None:
    """Generate calibration videos as `blvnet synth` does."""
    plans = plan(CLIPS, seed=1, shares={"train": 1.0})
    for _ in write_dataset(folder, plans, jobs=1):
        pass


def prepare(name: str, precisions: Sequence[Precision], folder: Path, clips: Path, say: Say) -> Prepared:
    """Create random weights for a network and write all its forms to `folder`.

    Args:
        name: name of the network.
        precisions: precisions of the packages.
        folder: an empty folder.
        clips: folder of calibration videos.
        say: called with a description of each step.
    """
    config = parse_architecture(name, num_classes=CLASSES)
    checkpoint, plain = folder / "made.pt", folder / "plain.onnx"
    say(f"{name}: creating weights")
    _write_checkpoint(checkpoint, config)
    say(f"{name}: plain export")
    export_plain(checkpoint, plain)
    reference = load_eager(checkpoint, threads=1)(probe_clips(config.clip_spec()))
    prepared = Prepared(
        config,
        2 * profile_network(config).total.gmacs,
        checkpoint,
        plain,
        ExpectedOutputs("eager PyTorch", reference),
    )
    for precision in precisions:
        say(f"{name}: exporting {precision}")
        try:
            prepared.packages[precision] = _exported(checkpoint, precision, folder, clips)
        except BlvnetError as exc:
            prepared.failures[precision] = exc.message
    return prepared


def reference_for(prepared: Prepared, result: WorkloadResult) -> ExpectedOutputs:
    """PyTorch's answers, with the bound of the workload's package if it has one."""
    folder = result.workload.options.get("folder")
    stored = read_manifest(folder).reference if folder else None
    return replace(prepared.reference, bound=stored.bound if stored else None)


def export_random_int8(name: str, folder: Path) -> Path:
    """Export a network with random weights to int8 below an empty folder; return the `MODELS` folder."""
    clips, checkpoint = folder / "clips", folder / "made.pt"
    write_clips(clips)
    _write_checkpoint(checkpoint, parse_architecture(name, num_classes=CLASSES))
    return _exported(checkpoint, Precision.INT8, folder, clips).parents[1]


def gpu_workloads(prepared: Prepared, threads: int, batches: Sequence[int]) -> list[Workload]:
    """All workloads of a network on a GPU: PyTorch eager and compiled, and onnxruntime's providers."""

    def workload(name: str, factory: str, options: dict[str, Any]) -> Workload:
        return Workload(name, factory, options, threads, tuple(batches), prepared.gflop)

    found = []
    for label, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        options: dict[str, Any] = {
            "checkpoint": prepared.checkpoint,
            "threads": threads,
            "arithmetic": TorchArithmetic(CUDA, dtype),
        }
        found.append(workload(f"{EAGER}, {label}", "benchmarks.inference.plain:load_eager", options))
    # Compiling takes a minute, so only the last arithmetic, the fastest, is compiled.
    options |= {"cache": prepared.checkpoint.parent}
    found.append(workload(f"{COMPILED}, {label}", "benchmarks.inference.plain:load_compiled", options))
    options = {"graph": prepared.plain, "provider": CUDA, "threads": threads}
    found.append(workload(f"{PLAIN}, {CUDA}", "service.bench.package:load_graph", options))
    return found + packages(prepared, threads, batches, GPU_PROVIDERS)


def gpu_product(threads: int) -> Workload:
    """The float32 matrix product on the GPU."""
    options = {"size": GPU_PRODUCT_SIZE}
    gflop = 2 * GPU_PRODUCT_SIZE**3 / 1e9
    return Workload(
        "matrix product", "benchmarks.inference.plain:load_product", options, threads, gflop=gflop
    )


def plain_forms(
    prepared: Prepared, threads: int, batches: Sequence[int], *, compiled: bool
) -> list[Workload]:
    """Workloads of the plain form: in PyTorch, and exported by torch in onnxruntime."""
    plain = Workload(
        name=EAGER,
        factory="benchmarks.inference.plain:load_eager",
        options={"checkpoint": prepared.checkpoint, "threads": threads},
        threads=threads,
        batches=tuple(batches),
        gflop=prepared.gflop,
    )
    found = [plain]
    if compiled:
        options = {**plain.options, "cache": prepared.checkpoint.parent}
        found.append(
            replace(plain, name=COMPILED, factory="benchmarks.inference.plain:load_compiled", options=options)
        )
    found.append(
        replace(
            plain,
            name=PLAIN,
            factory="service.bench.package:load_graph",
            options={"graph": prepared.plain, "provider": "cpu", "threads": threads},
        )
    )
    return found


def packages(
    prepared: Prepared, threads: int, batches: Sequence[int], providers: Sequence[str] = ()
) -> list[Workload]:
    """Workloads of the packages in every precision, on the given providers or on all."""
    return [
        replace(workload, name=f"{workload.name}, {precision} package")
        for precision, folder in prepared.packages.items()
        for workload in package_workloads(folder, providers, threads, batches)
    ]


def _write_checkpoint(path: Path, config: ModelConfig) -> None:
    others = (f"other {n}" for n in range(CLASSES - len(LABELS)))
    write_random_checkpoint(path, config, labels=[*LABELS, *others])


def _exported(checkpoint: Path, precision: Precision, folder: Path, clips: Path) -> Path:
    needs_clips: dict[str, Any] = {"calibration": clips, "limits": ANY_ACCURACY}
    request = ExportRequest(
        checkpoint=checkpoint,
        models=folder / "models",
        name=str(precision),
        precision=precision,
        **(needs_clips if precision is Precision.INT8 else {}),
    )
    quiet = ProgressReporter(Console(file=io.StringIO()))
    return export(request, quiet).folder

"""The networks of the inference benchmark, and what competes for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.plain import CUDA, Arithmetic, export_plain, load_eager, write_made_checkpoint
from model_export.config import ModelConfig
from model_export.export import ExportRequest, export
from model_export.networks.names import parse_architecture
from model_export.precision import Precision
from model_export.profile import GIGA, count_macs
from model_export.synthetic.classes import LABELS
from model_export.synthetic.dataset import plan, write_dataset
from service.bench.figures import Reference
from service.bench.package import contenders as package_contenders
from service.bench.race import Result
from service.clip.probe import probe_clips
from service.contenders.contender import Arrays, Contender
from service.errors import BlvnetError
from service.manifest import read_manifest

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
GPU_PRODUCT_SIZE = 8192  # it takes 1.1 TFLOP: tens of milliseconds
CLIPS = 6  # to calibrate with: ranges of made weights need no more, and judging by them takes its time
# Weights are made and know nothing, so nothing is judged by how much of that int8 keeps.
ANY_DROP = 100.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A network on disk, in every form that competes.

    Attributes:
        config: the network's.
        gflop: 10^9 operations of one clip.
        checkpoint: its weights.
        plain: the plain export.
        packages: what `blvnet export` wrote.
        failures: precisions that could not be exported, and why.
        reference: what PyTorch answers to the probe clips.
    """

    config: ModelConfig
    gflop: float
    checkpoint: Path
    plain: Path
    reference: Reference
    packages: dict[Precision, Path] = field(default_factory=dict)
    failures: dict[Precision, str] = field(default_factory=dict)

    @property
    def question(self) -> Arrays:
        """The probe clips."""
        return probe_clips(self.config.clip_spec())


def write_clips(folder: Path) -> None:
    """A few made clips to calibrate with, as `blvnet synth` makes them."""
    plans = plan(CLIPS, seed=1, shares={"train": 1.0})
    for _ in write_dataset(folder, plans, jobs=1):
        pass


def prepare(name: str, precisions: Sequence[Precision], folder: Path, clips: Path, say: Say) -> Prepared:
    """Make weights for a network and write all its forms into `folder`.

    Args:
        name: of the network.
        precisions: of the packages.
        folder: an empty one.
        clips: to calibrate with.
        say: told each step.
    """
    config = parse_architecture(name, num_classes=CLASSES)
    checkpoint, plain = folder / "made.pt", folder / "plain.onnx"
    say(f"{name}: making weights")
    _write_checkpoint(checkpoint, config)
    say(f"{name}: plain export")
    export_plain(checkpoint, plain)
    reference = load_eager(checkpoint, threads=1)(probe_clips(config.clip_spec()))
    prepared = Prepared(
        config, 2 * count_macs(config) / GIGA, checkpoint, plain, Reference("eager PyTorch", reference)
    )
    for precision in precisions:
        say(f"{name}: exporting {precision}")
        try:
            prepared.packages[precision] = _exported(checkpoint, precision, folder, clips)
        except BlvnetError as exc:
            prepared.failures[precision] = exc.message
    return prepared


def reference_for(prepared: Prepared, result: Result) -> Reference:
    """PyTorch's answer for a contender; how far from it is right, a package says for itself."""
    folder = result.contender.options.get("folder")
    stored = read_manifest(folder).reference if folder else None
    return replace(prepared.reference, bound=stored.bound if stored else None)


def made_int8(name: str, folder: Path) -> Path:
    """A network with made weights as an int8 package below an empty folder; the `MODELS` that holds it."""
    clips, checkpoint = folder / "clips", folder / "made.pt"
    write_clips(clips)
    _write_checkpoint(checkpoint, parse_architecture(name, num_classes=CLASSES))
    return _exported(checkpoint, Precision.INT8, folder, clips).parents[1]


def gpu_contenders(prepared: Prepared, threads: int, batches: Sequence[int]) -> list[Contender]:
    """All that compete for a network on a GPU: PyTorch eager and compiled, and onnxruntime's providers."""

    def entrant(name: str, factory: str, options: dict[str, Any]) -> Contender:
        return Contender(name, factory, options, threads, tuple(batches), prepared.gflop)

    found = []
    for label, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        options: dict[str, Any] = {
            "checkpoint": prepared.checkpoint,
            "threads": threads,
            "arithmetic": Arithmetic(CUDA, dtype),
        }
        found.append(entrant(f"{EAGER}, {label}", "benchmarks.plain:load_eager", options))
    # Compiling takes a minute, so in the faster arithmetic alone: the last one.
    options |= {"cache": prepared.checkpoint.parent}
    found.append(entrant(f"{COMPILED}, {label}", "benchmarks.plain:load_compiled", options))
    options = {"graph": prepared.plain, "provider": CUDA, "threads": threads}
    found.append(entrant(f"{PLAIN}, {CUDA}", "service.bench.package:load_graph", options))
    return found + packages(prepared, threads, batches, GPU_PROVIDERS)


def gpu_product(threads: int) -> Contender:
    """The GPU's own float32 matrix product."""
    options = {"size": GPU_PRODUCT_SIZE}
    gflop = 2 * GPU_PRODUCT_SIZE**3 / 1e9
    return Contender("matrix product", "benchmarks.plain:load_product", options, threads, gflop=gflop)


def plain_forms(
    prepared: Prepared, threads: int, batches: Sequence[int], *, compiled: bool
) -> list[Contender]:
    """A network as the papers write it: in PyTorch, and as torch's exporter writes it in onnxruntime."""
    plain = Contender(
        name=EAGER,
        factory="benchmarks.plain:load_eager",
        options={"checkpoint": prepared.checkpoint, "threads": threads},
        threads=threads,
        batches=tuple(batches),
        gflop=prepared.gflop,
    )
    found = [plain]
    if compiled:
        options = {**plain.options, "cache": prepared.checkpoint.parent}
        found.append(replace(plain, name=COMPILED, factory="benchmarks.plain:load_compiled", options=options))
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
) -> list[Contender]:
    """A network as `blvnet export` writes it, in every precision on the providers, or on all of them."""
    return [
        replace(contender, name=f"{contender.name}, {precision} package")
        for precision, folder in prepared.packages.items()
        for contender in package_contenders(folder, providers, threads, batches)
    ]


def _write_checkpoint(path: Path, config: ModelConfig) -> None:
    others = (f"other {n}" for n in range(CLASSES - len(LABELS)))
    write_made_checkpoint(path, config, labels=[*LABELS, *others])


def _exported(checkpoint: Path, precision: Precision, folder: Path, clips: Path) -> Path:
    needs_clips: dict[str, Any] = {"calibration": clips, "max_drop": ANY_DROP}
    request = ExportRequest(
        checkpoint=checkpoint,
        models=folder / "models",
        name=str(precision),
        precision=precision,
        **(needs_clips if precision is Precision.INT8 else {}),
    )
    return export(request, say=_nothing).folder


def _nothing(_: str) -> None:
    """The steps of an export are no steps of this."""

"""From a checkpoint to a model package: network, labels, graph, proof, manifest, in that order.

checkpoint ──> network ──> graphs for onnxruntime and OpenVINO ──┐
                  │                                              ├──> package
                  └────────> proof on the same clips ────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import onnxruntime
from torch import nn

from model_export.calibration import Stored, clips_in_folder, clips_of_dataset, made_clips, read_clips
from model_export.checkpoint import Checkpoint, load_network
from model_export.config import ModelConfig, Stem
from model_export.graph import OPSET
from model_export.graphs import OPENVINO_FILE, Judgement, Source, write_graphs
from model_export.labels import LabelsError, check_count, checked, read_labels
from model_export.package import check_free, next_version, staged
from model_export.parity import CLIPS, Parity, probe_logits
from model_export.precision import BOUNDS, CALIBRATION_CLIPS, MAX_DROP, Precision
from model_export.profile import GIGA, count_macs
from model_export.progress import Say
from service.clip.probe import PROBE
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError
from service.manifest import (
    GRAPH_FILE,
    GraphFile,
    Manifest,
    Reference,
    read_manifest,
    sha256_of,
    verify_graph,
    write_manifest,
)

GMACS_DIGITS = 6
TOOLS = ("blvnet-serve", "torch", "onnx", "onnxscript")  # onnxruntime comes under several names
# What a checkpoint of ours says of its training that is worth showing; the trainer's folders are not.
TRAINING_FACTS = ("dataset", "step", "best_top1")


class ExportError(BlvnetError):
    """Options that do not fit the checkpoint."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and as what. None leaves the choice to the checkpoint, or to what is there already.

    Attributes:
        checkpoint: the file, ours or a published one.
        models: folder of all packages.
        architecture: a name as on the command line.
        frames: T.
        taps: r, of the TAMs.
        size: S in pixels.
        stem: of a two-stream network.
        labels: a label file (`labels`).
        name: of the model; the architecture's where None.
        version: of the package; the next one where None.
        precision: of the graphs.
        calibration: folder of clips to prove the graphs with, and to measure ranges with for int8; clips are
            made on the spot where None.
        calibration_dataset: the data set that is in that folder, in its own layout. Then its training split
            is what to prove and to measure with, and its validation split what to judge by.
        calibration_clips: most clips to measure ranges with.
        validation: folder of clips to judge int8 by; the calibration's where None.
        max_drop: points of top-1 that int8 may lose.
        sampling: how frames are spread over a clip; as trained, else uniform.
        stride: distance of frames with dense sampling.
        scale: shorter side in pixels before the crop to `size`; as trained, else `size`.
    """

    checkpoint: Path
    models: Path
    architecture: str | None = None
    frames: int | None = None
    taps: int | None = None
    size: int | None = None
    stem: Stem | None = None
    labels: Path | None = None
    name: str | None = None
    version: int | None = None
    precision: Precision = Precision.FP32
    calibration: Path | None = None
    calibration_dataset: str | None = None
    calibration_clips: int = CALIBRATION_CLIPS
    validation: Path | None = None
    max_drop: float = MAX_DROP
    sampling: Sampling | None = None
    stride: int | None = None
    scale: int | None = None


@dataclass(frozen=True)
class Exported:
    """A package that was written: its folder, manifest, and sizes in bytes and parameters."""

    folder: Path
    manifest: Manifest
    graph_bytes: int
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet export --json`."""
        return {
            "package": str(self.folder),
            "name": self.manifest.name,
            "version": self.manifest.version,
            "architecture": self.manifest.architecture,
            "precision": self.manifest.precision,
            "classes": len(self.manifest.labels),
            "parameters": self.parameters,
            "graph_bytes": self.graph_bytes,
            "sha256": self.manifest.sha256,
            "parity": self.manifest.parity,
        }


def export(request: ExportRequest, say: Say, note: Say | None = None) -> Exported:
    """Export a checkpoint; `say` is told each step, `note` what is to be read later too, such as bad clips.

    Raises:
        BlvnetError: something is wrong with the checkpoint, the labels, the clips or the destination, or the
            graph does not compute what the network does. Then no package is left behind.
    """
    network, config, checkpoint = _load(request)
    say(
        f"{config.architecture}: {config.num_classes} classes, {config.frames} frames at {config.size} pixels"
    )
    labels = _labels(request, checkpoint, config)
    clip = _clip(request, checkpoint, config)
    name = request.name or config.architecture
    version = next_version(request.models, name) if request.version is None else request.version
    check_free(request.models, name, version)
    if request.calibration_dataset is not None:
        say("reading the lists of clips")
    judgement = _judgement(request, labels, note or say)
    source = _source(request, network, clip, note or say)
    with staged(request.models, name, version) as folder:
        parities = write_graphs(source, folder, judgement, say)
        manifest = Manifest(
            name=name,
            version=version,
            architecture=config.architecture,
            clip=clip,
            labels=labels,
            precision=request.precision.value,
            sha256=sha256_of(folder / GRAPH_FILE),
            gmacs=round(count_macs(config) / GIGA, GMACS_DIGITS),
            parity=parities[GRAPH_FILE].to_json(),
            graphs={"openvino": _graph_file(folder / OPENVINO_FILE, parities[OPENVINO_FILE])},
            reference=_reference(network, clip, request.precision),
            provenance=_provenance(checkpoint),
        )
        _write_checked(manifest, folder)
        graph_bytes = sum((folder / file).stat().st_size for file in parities)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Exported(request.models / name / str(version), manifest, graph_bytes, parameters)


def _load(request: ExportRequest) -> tuple[nn.Module, ModelConfig, Checkpoint]:
    network, config, checkpoint = load_network(
        request.checkpoint,
        _architecture(request),
        frames=request.frames,
        taps=request.taps,
        size=request.size,
    )
    if request.stem not in (None, config.stem):
        raise ExportError(
            f"{request.checkpoint} holds a network with the {config.stem} stem, not the {request.stem} one"
        )
    return network, config, checkpoint


def _architecture(request: ExportRequest) -> str | None:
    """The name with the stem that was asked for in it, so that one place checks both."""
    name, stem = request.architecture, request.stem
    if name is None or stem is None or stem in name.split("-"):
        return name
    return f"{name}-{stem}"


def _labels(request: ExportRequest, checkpoint: Checkpoint, config: ModelConfig) -> tuple[str, ...]:
    if request.labels is not None:
        labels, source = read_labels(request.labels), str(request.labels)
    elif "labels" in checkpoint.training:
        labels, source = checked(checkpoint.training["labels"]), str(request.checkpoint)
    else:
        raise LabelsError(f"{request.checkpoint} does not say what its classes are called: add --labels FILE")
    check_count(labels, config.num_classes, source)
    return labels


def _clip(request: ExportRequest, checkpoint: Checkpoint, config: ModelConfig) -> ClipSpec:
    """As asked for, else as trained, else as published: uniform, scaled to the size of the crop."""
    trained = checkpoint.training.get("clip", {})
    sampling = request.sampling or Sampling(trained.get("sampling", Sampling.UNIFORM))
    stride = request.stride or trained.get("stride", 1)
    scale = request.scale
    if scale is None and request.size is None and trained:
        scale = trained["inputs"][0]["scale"]
    if scale is not None and scale < config.size:
        raise ExportError(f"--scale {scale} is less than the size, {config.size}: there is nothing to crop")
    return config.clip_spec(sampling, stride, scale)


def _source(request: ExportRequest, network: nn.Module, clip: ClipSpec, note: Say) -> Source:
    """The network with the clips to prove and to calibrate with."""
    if request.calibration is None:
        if request.precision is Precision.INT8:
            raise ExportError("int8 needs clips to measure ranges with: add --calibration DIR")
        proof, name = made_clips(clip, CLIPS), "made clips"
        return Source(network, clip, request.precision, proof, name)
    stored = _calibration(request.calibration, request.calibration_dataset, note)
    proof = read_clips(stored, clip, CLIPS)
    calibration = (
        read_clips(stored, clip, request.calibration_clips, repeat=False)
        if request.precision is Precision.INT8
        else []
    )
    return Source(network, clip, request.precision, proof, "real clips", calibration)


def _calibration(folder: Path, dataset: str | None, note: Say) -> Stored:
    return clips_in_folder(folder) if dataset is None else clips_of_dataset(dataset, folder, "train", note)


def _judgement(request: ExportRequest, labels: Sequence[str], note: Say) -> Judgement | None:
    """What an int8 package is judged by: --validation, else the validation split, else --calibration."""
    if request.precision is not Precision.INT8 or request.calibration is None:
        return None
    if request.validation is not None or request.calibration_dataset is None:
        clips = clips_in_folder(request.validation or request.calibration, labels)
    else:
        clips = clips_of_dataset(request.calibration_dataset, request.calibration, "val", note, labels)
    return Judgement(clips, request.max_drop)


def _graph_file(path: Path, parity: Parity) -> GraphFile:
    return GraphFile(file=path.name, sha256=sha256_of(path), parity=parity.to_json())


def _reference(network: nn.Module, clip: ClipSpec, precision: Precision) -> Reference:
    """What the PyTorch network answers to the probe clips, for servers to ask again."""
    logits = probe_logits(network, clip)
    rows = tuple(tuple(float(f"{value:.7g}") for value in row) for row in logits)
    return Reference(probe=PROBE, bound=BOUNDS[precision].logits, logits=rows)


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    training = {fact: checkpoint.training[fact] for fact in TRAINING_FACTS if fact in checkpoint.training}
    return {
        "checkpoint": checkpoint.path.name,
        "checkpoint_sha256": sha256_of(checkpoint.path),
        "layout": checkpoint.naming.layout.value,
        "opset": OPSET,
        "tools": {tool: version_of(tool) for tool in TOOLS} | {"onnxruntime": onnxruntime.__version__},
        **({"training": training} if training else {}),
    }


def _write_checked(manifest: Manifest, folder: Path) -> None:
    """Write the manifest and read it back as a server will."""
    write_manifest(manifest, folder)
    verify_graph(read_manifest(folder), folder)

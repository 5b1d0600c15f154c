"""The plan of an export: a request, resolved once against the checkpoint and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.checkpoints.checkpoint import Checkpoint, load_network
from model_export.datasets.files import read_text
from model_export.datasets.labels import LabelsError, check_count, checked, read_labels
from model_export.datasets.symmetry import read_mirror
from model_export.export.calibration import ClipSources, examples_in_folder, examples_of_dataset
from model_export.export.card import read_evaluation
from model_export.export.precision import CALIBRATION_CLIPS, LIMITS, AccuracyLimits, Precision
from model_export.export.rewrites.variants import GraphVariant
from model_export.networks.config import ModelConfig, Stem
from model_export.networks.residual import VideoClassifier
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError
from service.packages.folders import next_version
from service.packages.manifest import GRAPH_FILE, MAX_SIZE, Scores

OPENVINO = "openvino"
OPENVINO_FILE = "openvino.onnx"
# The variant of model.onnx, which onnxruntime loads. OpenVINO's is the same in every precision.
VARIANTS = {
    Precision.FP32: GraphVariant.BLOCKED,
    Precision.FP16: GraphVariant.CHANNELS_LAST,
    Precision.INT8: GraphVariant.CHANNELS_LAST,
}


class ExportError(BlvnetError):
    """Options that do not fit the checkpoint."""


@dataclass(frozen=True)
class ExportRequest:
    """The options of an export. None leaves the choice to the checkpoint, or to a default.

    Attributes:
        checkpoint: the file, ours or a published one.
        models: folder of all packages.
        architecture: an architecture name.
        frames: T.
        taps: r, the number of taps of a TAM.
        size: S in pixels.
        stem: stem of a big-little network.
        labels: a label file.
        symmetry: a JSON file with the label that each label becomes in a mirrored clip.
        name: name of the model; default its architecture.
        version: version of the package; default the next one.
        precision: of the graphs.
        calibration: folder of videos on which to compare the graphs with PyTorch and calibrate int8;
            default synthetic clips.
        calibration_dataset: the data set in that folder, in its own layout. Then its training split
            calibrates, and its validation split is for the accuracy gate.
        calibration_clips: maximum number of clips to calibrate with.
        validation: folder of videos for the accuracy gate of int8; default that of the calibration.
        limits: limits of the accuracy gate.
        sampling: how frames are spread over a clip; default as trained, else uniform.
        stride: distance of frames with dense sampling.
        scale: shorter side in pixels before the crop to `size`; default as trained, else `size`.
        evaluation: output of `blvnet evaluate --json`, for the model card.
        notes: Markdown for the model card.
    """

    checkpoint: Path
    models: Path
    architecture: str | None = None
    frames: int | None = None
    taps: int | None = None
    size: int | None = None
    stem: Stem | None = None
    labels: Path | None = None
    symmetry: Path | None = None
    name: str | None = None
    version: int | None = None
    precision: Precision = Precision.FP32
    calibration: Path | None = None
    calibration_dataset: str | None = None
    calibration_clips: int = CALIBRATION_CLIPS
    validation: Path | None = None
    limits: AccuracyLimits = LIMITS
    sampling: Sampling | None = None
    stride: int | None = None
    scale: int | None = None
    evaluation: Path | None = None
    notes: Path | None = None


@dataclass(frozen=True)
class GraphPlan:
    """A graph to write: its file, its variant, and the engine that loads it instead of `model.onnx`."""

    file: str
    variant: GraphVariant
    engine: str | None = None


@dataclass(frozen=True)
class ExportPlan:
    """All decisions of an export.

    Attributes:
        network: the network with the checkpoint's weights.
        config: its configuration.
        checkpoint: source of the weights.
        clip: the clips that the network takes.
        labels: labels of its classes.
        mirror: for each label the index of its mirror image; None if unknown.
        name: name of the model.
        version: version of the package.
        precision: of the graphs.
        scores: how logits become scores.
        graphs: graphs to write, `model.onnx` first.
        models: folder of all packages.
        sources: videos for the comparison, for int8 and for its accuracy gate.
        limits: limits of the accuracy gate.
        evaluation: an evaluation for the model card; None without one.
        notes: Markdown for the model card, may be empty.
    """

    network: VideoClassifier
    config: ModelConfig
    checkpoint: Checkpoint
    clip: ClipSpec
    labels: tuple[str, ...]
    mirror: tuple[int, ...] | None
    name: str
    version: int
    precision: Precision
    scores: Scores
    graphs: tuple[GraphPlan, ...]
    models: Path
    sources: ClipSources
    limits: AccuracyLimits
    evaluation: dict[str, Any] | None
    notes: str


def plan_export(request: ExportRequest, progress: ProgressReporter) -> ExportPlan:
    """Resolve a request.

    Raises:
        BlvnetError: the checkpoint, the clips, the evaluation or the notes cannot be read, an option
            contradicts the checkpoint, or the labels are not its network's.
    """
    evaluation = None if request.evaluation is None else read_evaluation(request.evaluation)
    notes = "" if request.notes is None else read_text(request.notes).strip()
    network, config, checkpoint = load_network(
        request.checkpoint,
        request.architecture,
        frames=request.frames,
        taps=request.taps,
        size=request.size,
        stem=request.stem,
    )
    progress.step(
        f"{config.architecture}: {config.num_classes} classes, {config.frames} frames at {config.size} pixels"
    )
    if request.precision is Precision.INT8 and request.calibration is None:
        raise ExportError("int8 needs clips to measure ranges with: add --calibration DIR")
    training = checkpoint.training

    if request.labels is not None:
        labels, labels_source = read_labels(request.labels), request.labels
    elif "labels" in training:
        labels, labels_source = checked(training["labels"]), request.checkpoint
    else:
        raise LabelsError(f"{request.checkpoint} does not record the names of its classes: add --labels FILE")
    check_count(labels, config.num_classes, str(labels_source))
    if request.symmetry is not None:
        mirror: tuple[int, ...] | None = read_mirror(request.symmetry, labels)
    else:
        trained: list[int | None] = list(training.get("mirrored", ()))
        known = tuple(index for index in trained if index is not None)
        same_labels = tuple(training.get("labels", ())) == labels
        mirror = known if same_labels and len(known) == len(labels) else None

    trained_clip = training.get("clip", {})
    scale = request.scale
    if scale is None and request.size is None and trained_clip:
        scale = trained_clip["inputs"][0]["scale"]
    if scale is not None and scale < config.size:
        raise ExportError(f"--scale {scale} is less than the size, {config.size}: there is nothing to crop")
    if scale is not None and scale > MAX_SIZE:
        raise ExportError(f"--scale {scale} is more than a package may have, {MAX_SIZE}")
    clip = config.clip_spec(
        request.sampling or Sampling(trained_clip.get("sampling", Sampling.UNIFORM)),
        request.stride or trained_clip.get("stride", 1),
        scale,
    )

    name = request.name or config.architecture
    return ExportPlan(
        network=network,
        config=config,
        checkpoint=checkpoint,
        clip=clip,
        labels=labels,
        mirror=mirror,
        name=name,
        version=next_version(request.models, name) if request.version is None else request.version,
        precision=request.precision,
        scores=_scores(checkpoint),
        graphs=(
            GraphPlan(GRAPH_FILE, VARIANTS[request.precision]),
            GraphPlan(OPENVINO_FILE, GraphVariant.CONV3D, OPENVINO),
        ),
        models=request.models,
        sources=_find_clips(request, labels, progress),
        limits=request.limits,
        evaluation=evaluation,
        notes=notes,
    )


def _find_clips(request: ExportRequest, labels: Sequence[str], progress: ProgressReporter) -> ClipSources:
    folder, dataset = request.calibration, request.calibration_dataset
    if folder is None:
        return ClipSources()
    if dataset is None:
        examples = examples_in_folder(folder)
    else:
        progress.step("reading the lists of videos")
        examples = examples_of_dataset(dataset, folder, "train", None, progress)
    if request.precision is not Precision.INT8:
        return ClipSources(examples)
    if dataset is not None and request.validation is None:
        validation = examples_of_dataset(dataset, folder, "val", labels, progress)
    else:
        validation = examples_in_folder(request.validation or folder, labels)
    return ClipSources(examples, request.calibration_clips, validation)


def _scores(checkpoint: Checkpoint) -> Scores:
    """How logits become scores, as in training; published checkpoints have one label per video."""
    value = checkpoint.training.get("scores", Scores.SOFTMAX)
    if value not in list(Scores):
        raise ExportError(
            f"{checkpoint.path}: its scores are {value!r}, and this version knows {' and '.join(Scores)}: "
            "export it with the version that trained it"
        )
    return Scores(value)

"""Checkpoints: this project's own, and the published ones in their own layouts.

A file is read without running any code in it, its layout is detected (`layouts`), and it is loaded strictly:
every tensor of the network comes from the file, and every tensor of the file goes into the network.

Our own files are dicts of plain values and tensors:

    {"format": "blvnet-serve", "version": 1, "config": {...}, "weights": {...}, "training": {...}}

`training` holds what a training run needs to continue (optimiser, step, random state) and what an export
reads: `labels`, `clip`, `mirrored` and, for videos with several labels, `scores`. For weights that were
converted from a package, `folded` is true: see `Checkpoint.folded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_export.checkpoints.image_names import open_container, translate
from model_export.checkpoints.layouts import DetectedNetwork, Layout, Naming, detect
from model_export.checkpoints.package import package_folder, restore_package
from model_export.checkpoints.safetensors_file import SUFFIX, read_safetensors, write_safetensors
from model_export.checkpoints.torch_file import CheckpointError, read_torch_file
from model_export.networks.config import ModelConfig, Stem
from model_export.networks.registry import build, parse_architecture, read_name
from model_export.networks.residual import VideoClassifier
from service.packages.files import atomic_write
from service.packages.manifest import GRAPH_FILE, Scores, inputs_to_json

FORMAT = "blvnet-serve"
VERSION = 1
NAMES_SHOWN = 5  # tensor names in a message


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file.

    Attributes:
        path: the file.
        naming: how the file names the weights.
        weights: tensors by their names in the file.
        config: the network of our own files; None for published ones, which do not record it.
        detected: what the tensors of a published file reveal about the network; None for our own.
        training: everything else in the file (optimiser, epoch, ...), as plain values and tensors.
        folded: whether the weights come from a graph without batch normalisations, so that their statistics
            must be measured before the network is trained.
    """

    path: Path
    naming: Naming
    weights: dict[str, Tensor]
    config: ModelConfig | None = None
    detected: DetectedNetwork | None = None
    training: dict[str, Any] = field(default_factory=dict)
    folded: bool = False

    @property
    def taps(self) -> int | None:
        """Number of taps of a TAM; None for a network without TAMs."""
        if self.config is not None:
            return self.config.taps
        return None if self.detected is None else self.detected.taps

    def describe(self) -> str:
        """The network, for messages."""
        if self.config is not None:
            return self.config.architecture
        assert self.detected is not None
        return self.detected.describe()

    def averaged(self) -> Checkpoint:
        """The checkpoint with the average of the weights in their place, if a run has kept one.

        `last.pt` of a run with `--ema` has both: training continues with the weights, and the average is what
        the run validates and what `best.pt` has.
        """
        average = self.training.get("average")
        if not isinstance(average, Mapping):
            return self
        prefix = "module."  # of torch's `AveragedModel`
        weights = {
            name.removeprefix(prefix): value
            for name, value in average.items()
            if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
        }
        return replace(self, weights=weights)

    def tensor(self, names: Sequence[str]) -> Tensor:
        """One of our tensors, by its names in the file, where the taps (r, C) of a TAM may be r tensors."""
        tensors = [self.weights[name] for name in names]
        is_tap = "tam." in names[0] and tensors[0].dim() == 4
        return torch.stack([tensor.flatten() for tensor in tensors]) if is_tap else tensors[0]


def save_checkpoint(
    path: Path, config: ModelConfig, weights: Mapping[str, Tensor], training: Mapping[str, Any] | None = None
) -> None:
    """Write our own format atomically: a reader sees either the old file or the new one.

    Args:
        path: the file; the suffix `.safetensors` selects that format, which has no optimiser state.
        config: the network's configuration.
        weights: the network's `state_dict()`.
        training: plain values, containers and tensors only, because reading runs no code.

    Raises:
        CheckpointError: the file cannot be written; an existing one is unchanged.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "config": config.to_json(),
        "weights": dict(weights),
        "training": dict(training or {}),
    }
    if path.suffix == SUFFIX:
        write_safetensors(path, document)
        return
    try:
        with atomic_write(path) as file:
            torch.save(document, file)
    except (OSError, RuntimeError) as exc:
        # On a full disk torch's writer raises its own RuntimeError while it handles the OSError.
        cause = exc if isinstance(exc, OSError) else exc.__context__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(f"{path} cannot be written ({cause.strerror})") from exc


def read_checkpoint(path: Path) -> Checkpoint:
    """Read any supported file, or the weights of a model package.

    Raises:
        BlvnetError: the file cannot be read, its tensors are not those of a supported network, or a
            package's weights cannot be restored.
    """
    folder = package_folder(path)
    if folder is not None:
        return _read_package(folder)
    document = read_safetensors(path) if path.suffix == SUFFIX else read_torch_file(path)
    own = document.get("format") == FORMAT
    if own:
        if document.get("version") != VERSION:
            raise CheckpointError(
                f"{path}: has version {document.get('version')!r} of this project's format; version "
                f"{VERSION} is supported"
            )
        if not all(isinstance(document.get(key), dict) for key in ("config", "weights", "training")):
            raise CheckpointError(f"{path}: config, weights or training are missing")
        weights, training = document["weights"], document["training"]
    else:
        weights, training = open_container(document)
    if not weights:
        raise CheckpointError(f"{path}: holds no tensors")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: holds {name!r}, a {type(value).__name__}, among a network's tensors"
            )
    if own:
        config = ModelConfig.from_json(document["config"])
        folded = training.get("folded") is True
        return Checkpoint(path, Naming(Layout.OWN), weights, config, training=training, folded=folded)
    try:
        weights = translate(weights)
        naming, detected = detect(weights)
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc.message}") from exc
    return Checkpoint(path, naming, weights, detected=detected, training=training)


def _read_package(folder: Path) -> Checkpoint:
    network, config, manifest = restore_package(folder)
    training: dict[str, Any] = {
        "labels": list(manifest.labels),
        "clip": {
            "frames": manifest.frames,
            "sampling": manifest.sampling.value,
            "stride": manifest.stride,
            "inputs": inputs_to_json(manifest.clip),
        },
        **({} if manifest.mirror is None else {"mirrored": list(manifest.mirror)}),
        **({} if manifest.scores is Scores.SOFTMAX else {"scores": manifest.scores.value}),
        **manifest.provenance.get("training", {}),
    }
    return Checkpoint(
        folder / GRAPH_FILE, Naming(Layout.OWN), network.state_dict(), config, training=training, folded=True
    )


def configure(
    checkpoint: Checkpoint,
    architecture: str | None = None,
    *,
    frames: int | None = None,
    taps: int | None = None,
    size: int | None = None,
    stem: Stem | None = None,
) -> ModelConfig:
    """The configuration of a checkpoint's network, checked against command-line options.

    Args:
        checkpoint: the file.
        architecture: an architecture name; needed for published files.
        frames: T, if the name does not contain it.
        taps: number of taps of a TAM; None takes the file's.
        size: S; None takes the file's, or 224.
        stem: None takes the file's.

    Raises:
        CheckpointError: the name or an option contradicts the file; the message says what the file holds.
    """
    path, own, detected = checkpoint.path, checkpoint.config, checkpoint.detected
    if own is not None:
        options: dict[str, object] = {} if architecture is None else asdict(read_name(architecture))
        given = {"frames": frames, "taps": taps, "stem": stem}
        options |= {option: value for option, value in given.items() if value is not None}
        for option, value in options.items():
            if value not in (None, getattr(own, option)):
                raise CheckpointError(
                    f"{path} holds {own.architecture} with {option} {getattr(own, option)}, not {value}"
                )
        return own if size is None else replace(own, size=size)
    assert detected is not None
    if architecture is None:
        raise CheckpointError(f"{path} holds {detected.describe()}; name the network with --arch")
    name = read_name(architecture)
    if taps is None and name.taps is None and name.family.has_tam:
        taps = detected.taps
    config = parse_architecture(
        architecture, num_classes=detected.classes, frames=frames, taps=taps, size=size, stem=stem
    )
    if contradictions := detected.contradictions(config):
        raise CheckpointError(
            f"{path} is not a checkpoint of {config.architecture}: it holds {'; '.join(contradictions)}"
        )
    return config


def restore(checkpoint: Checkpoint, config: ModelConfig) -> VideoClassifier:
    """The network with the checkpoint's weights, in float32 and evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, unexpected or has another shape; the message names them.
    """
    path, present = checkpoint.path, checkpoint.weights.keys()
    network = build(config)
    expected = network.state_dict()
    names = {key: checkpoint.naming.names(key, config.taps) for key in expected}
    every_name = {name for group in names.values() for name in group}
    problems = []
    if missing := sorted(every_name - present):
        problems.append(f"missing {listed(missing)}")
    if unexpected := sorted(present - every_name):
        problems.append(f"unexpected {listed(unexpected)}")
    if problems:
        raise CheckpointError(f"{path}: the tensors do not match the network: {'; '.join(problems)}")
    weights = {key: checkpoint.tensor(group) for key, group in names.items()}
    wrong = [
        f"{names[key][0]} is {tuple(weights[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if weights[key].shape != tensor.shape
    ]
    if wrong:
        raise CheckpointError(f"{path}: tensors have other shapes than in the network: {listed(wrong)}")
    network.load_state_dict(weights)
    return network.eval()


def load_network(
    path: Path,
    architecture: str | None = None,
    *,
    frames: int | None = None,
    taps: int | None = None,
    size: int | None = None,
    stem: Stem | None = None,
) -> tuple[VideoClassifier, ModelConfig, Checkpoint]:
    """`read_checkpoint`, `averaged`, `configure` and `restore` in one call.

    Raises:
        CheckpointError: one of them fails.
    """
    checkpoint = read_checkpoint(path).averaged()
    config = configure(checkpoint, architecture, frames=frames, taps=taps, size=size, stem=stem)
    return restore(checkpoint, config), config, checkpoint


def listed(items: list[str]) -> str:
    """The first few items, and the number of the others."""
    more = len(items) - NAMES_SHOWN
    return ", ".join(items[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

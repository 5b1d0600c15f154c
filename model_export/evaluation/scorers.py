"""Networks that score views: a checkpoint in PyTorch, or a package in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from model_export.checkpoints.checkpoint import load_network
from model_export.datasets.reading import Inputs
from model_export.networks.config import ModelConfig
from model_export.networks.normalise import normalise
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError
from service.packages.folders import Package, bundled_models, scan_packages
from service.packages.manifest import FEATURES, GRAPH_FILE, LOGITS, read_manifest, verify_graph
from service.packages.taught import read_head

Floats = npt.NDArray[np.float32]
Mirror = Sequence[int | None]
"""For each label index that of the mirrored clip, or None if it is unknown."""


class Scorer(Protocol):
    """Computes logits in the order of `labels`; `mirror` is None if the network's file has none."""

    labels: tuple[str, ...]
    clip: ClipSpec
    mirror: Mirror | None

    def logits(self, inputs: Inputs) -> Floats:
        """Input name -> uint8 `(V, T_branch, size, size, 3)`, to logits `(V, C)`."""
        ...


class CheckpointScorer:
    """A checkpoint of `blvnet train`, in PyTorch and float32.

    Raises:
        BlvnetError: the checkpoint cannot be read, or does not contain its labels.
    """

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        network, config, checkpoint = load_network(path)
        training = checkpoint.training
        if "labels" not in training:
            raise BlvnetError(f"{path} contains no labels: it was not written by a training run")
        self.device = device or torch.device("cpu")
        self.network = network.to(self.device)
        self.labels = tuple(training["labels"])
        self.mirror: Mirror | None = training.get("mirrored")
        self.clip = _trained_clip(config, training)

    def logits(self, inputs: Inputs) -> Floats:
        """See `Scorer`.

        Raises:
            BlvnetError: the device has too little memory.
        """
        try:
            tensors = [
                normalise(torch.from_numpy(inputs[item.name]).to(self.device)) for item in self.clip.inputs
            ]
            with torch.inference_mode():
                evidence = self.network(*tensors)
        except torch.OutOfMemoryError as exc:
            count = len(next(iter(inputs.values())))
            raise BlvnetError(
                f"{self.device} has too little memory for {count} views at a time: use a smaller --batch-size"
            ) from exc
        return np.asarray(evidence.mean(1).cpu().numpy(), dtype=np.float32)


class PackageScorer:
    """The highest version of a model package, in onnxruntime.

    Args:
        models: folder of packages.
        name: name of the package. The base of a taught one is in the same folder, or is the bundled model.
        device: `cpu`, or `cuda` with the GPU build of onnxruntime.

    Raises:
        BlvnetError: there is no such package, it is damaged, or onnxruntime has no such device.
    """

    def __init__(self, models: Path, name: str, device: torch.device | None = None) -> None:
        packages = scan_packages(models).packages  # highest version first
        folder = next((package.folder for package in packages if package.name == name), None)
        if folder is None:
            raise BlvnetError(f"{models} contains no model {name!r}")
        manifest = read_manifest(folder)
        verify_graph(manifest, folder)
        self.labels = manifest.labels
        self.mirror: Mirror | None = manifest.mirror
        self.clip = manifest.clip
        self.head = None
        if manifest.base is not None:
            self.head = read_head(folder, manifest)
            known = [*packages, *scan_packages(bundled_models()).packages]
            folder = _find_base(known, manifest.base.name, manifest.base.version, manifest.base.sha256)
        provider = "CUDA" if device is not None and device.type == "cuda" else "CPU"
        if f"{provider}ExecutionProvider" not in onnxruntime.get_available_providers():
            raise BlvnetError("this onnxruntime has no CUDA: install blvnet-serve[gpu], or use --device cpu")
        self.session = onnxruntime.InferenceSession(
            folder / GRAPH_FILE, providers=[f"{provider}ExecutionProvider"]
        )

    def logits(self, inputs: Inputs) -> Floats:
        """See `Scorer`."""
        if self.head is not None:
            (features,) = self.session.run([FEATURES], inputs)
            return np.asarray(self.head.evidence(features).mean(axis=1), dtype=np.float32)
        (logits,) = self.session.run([LOGITS], inputs)
        return np.asarray(logits, dtype=np.float32)


def _find_base(packages: Sequence[Package], name: str, version: int, sha256: str) -> Path:
    """The folder of a taught package's base."""
    for package in packages:
        if (package.name, package.version) == (name, version):
            manifest = read_manifest(package.folder)
            if manifest.sha256 == sha256:
                verify_graph(manifest, package.folder)
                return package.folder
    raise BlvnetError(f"the base of this taught model, {name} version {version}, is not beside it")


def _trained_clip(config: ModelConfig, training: Mapping[str, Any]) -> ClipSpec:
    """The clip that a network was trained on, or the published one if its checkpoint has none."""
    clip = training.get("clip")
    if clip is None:
        return config.clip_spec()
    return config.clip_spec(Sampling(clip["sampling"]), clip["stride"], clip["inputs"][0]["scale"])

"""The weights of a model package, restored from its graph: to fine-tune a network, or to export it again.

An exported graph has no batch normalisations: they are folded into the convolutions before them. Here each
convolution gets the folded kernel, and its normalisation the folded bias with mean 0 and variance 1, so that
the restored network gives the same results in evaluation mode. Before it is trained, its normalisations need
statistics: `model_export.networks.batch_norms.measure_statistics`.

Taps that the export folded for merged frames are the solution of its linear equations
(`model_export.networks.temporal.fold_matrix`). The restored network is compared with the graph on the probe
clips before it is used.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.batch_norms import convolutions_with_norm, set_affine
from model_export.networks.blvnet import BLVNet, DualStem
from model_export.networks.config import ModelConfig
from model_export.networks.normalise import normalise, pixel_std
from model_export.networks.registry import build, parse_architecture
from model_export.networks.residual import VideoClassifier
from model_export.networks.temporal import TemporalAggregation, fold_matrix
from service.packages.folders import parse_version
from service.packages.manifest import GRAPH_FILE, MANIFEST_FILE, Manifest, read_manifest, verify_graph
from service.packages.probe_clips import probe_clips

MAX_DIFFERENCE = 1e-3  # between the logits on the probe clips, relative to the largest
WRAPPERS = re.compile(r"(network\.)+")  # prefixes that the export adds to a network's names


def package_folder(path: Path) -> Path | None:
    """The folder of a package: `path` itself, its highest version, or that of its graph; else None."""
    if path.is_file():
        path = path.parent if path.name == GRAPH_FILE else path
    if not path.is_dir():
        return None
    if (path / MANIFEST_FILE).is_file():
        return path
    versions = [(version, entry) for entry in path.iterdir() if (version := parse_version(entry.name))]
    return max(versions)[1] if versions else None


def restore_package(folder: Path) -> tuple[VideoClassifier, ModelConfig, Manifest]:
    """The network of a package in float32 and evaluation mode, its configuration and its manifest.

    Raises:
        BlvnetError: the package is damaged, is not in fp32, was not written by `blvnet export`, or the
            results of the restored network differ from those of the graph.
    """
    manifest = read_manifest(folder)
    verify_graph(manifest, folder)
    if manifest.precision != "fp32" or not (folder / GRAPH_FILE).is_file():
        kind = manifest.precision if (folder / GRAPH_FILE).is_file() else "a taught head"
        raise CheckpointError(
            f"{folder}: weights are restored from fp32 graphs, and this package holds {kind}: "
            "give the fp32 package of the same network"
        )
    config = parse_architecture(
        manifest.architecture,
        num_classes=len(manifest.labels),
        frames=manifest.frames,
        size=manifest.inputs[0].size,
    )
    network = build(config).eval()
    graph = FoldedGraph(folder)
    with torch.no_grad():
        _restore_convolutions(network, graph)
        for name, module in network.named_modules():
            if isinstance(module, TemporalAggregation):
                module.taps.copy_(_taps(graph, name, len(module.taps)))
        kernel, bias = graph.folded("fc")
        network.fc.weight.copy_(kernel)
        network.fc.bias.copy_(bias)
    _compare(network, manifest, folder)
    return network, config, manifest


class FoldedGraph:
    """The constant tensors of a package's graph, by their names in the network.

    Args:
        folder: the package's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        graph = onnx.load(folder / GRAPH_FILE).graph
        self._tensors = {
            WRAPPERS.sub("", tensor.name, count=1): torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
        }
        # Equal biases are one tensor in the graph, so that a bias need not have its convolution's name.
        self._biases = {
            WRAPPERS.sub("", node.input[1], count=1): WRAPPERS.sub("", node.input[2], count=1)
            for node in graph.node
            if node.op_type in ("Conv", "Gemm") and len(node.input) > 2
        }

    def tensor(self, *names: str) -> Tensor:
        """The first of these tensors that the graph has.

        Raises:
            CheckpointError: it has none of them.
        """
        for name in names:
            if name in self._tensors:
                return self._tensors[name]
        raise CheckpointError(
            f"{self.folder}: {GRAPH_FILE} has no tensor {names[0]}, so its weights cannot be restored; "
            "start from the checkpoint that it was exported from"
        )

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def folded(self, name: str, *others: str) -> tuple[Tensor, Tensor]:
        """Kernel and bias (O,) of a convolution; a bias of zeros is not in the graph."""
        kernel = self.tensor(f"{name}.weight", *(f"{other}.weight" for other in others))
        key = next(key for key in (name, *others) if f"{key}.weight" in self._tensors)
        bias = self._biases.get(f"{key}.weight")
        return kernel, torch.zeros(len(kernel)) if bias is None else self.tensor(bias)


def _restore_convolutions(network: VideoClassifier, graph: FoldedGraph) -> None:
    for path, module in network.named_modules():
        for convolution, norm in convolutions_with_norm(module):
            name = f"{path}.{convolution}" if path else convolution
            first = not path  # conv1 of the networks with one input
            # The export moves the branches of a big-little stem one level down.
            graph_name = f"{name}.convolution" if first else name.replace("stem.", "stem.stem.")
            kernel, bias = graph.folded(graph_name)
            if first:
                kernel = kernel * _pixel_scale(kernel)
            module.get_submodule(convolution).weight.copy_(kernel)
            set_affine(module.get_submodule(norm), torch.ones(len(kernel)), bias)
    if not isinstance(network, BLVNet):
        return
    stem = network.stem
    little, little_bias = graph.folded("stem.little_conv.convolution", "stem.big_conv.convolution")
    little = little * _pixel_scale(little)
    stem.conv1.weight.copy_(little)
    ones = torch.ones(len(little))
    set_affine(stem.bn1, ones, little_bias)
    if isinstance(stem, DualStem):
        # Both inputs share conv1 and differ in scale: each channel keeps the larger of its two kernels.
        big, big_bias = graph.folded("stem.big_conv.convolution", "stem.little_conv.convolution")
        big = big * _pixel_scale(big)
        products = (little * big).sum((1, 2, 3))
        little_square, big_square = little.square().sum((1, 2, 3)), big.square().sum((1, 2, 3))
        is_little = little_square >= big_square
        stem.conv1.weight.copy_(torch.where(is_little[:, None, None, None], little, big))
        ratio = products / torch.maximum(little_square, big_square).clamp_min(1e-30)
        set_affine(stem.bn1, torch.where(is_little, ones, ratio), little_bias)
        set_affine(stem.big_bn1, torch.where(is_little, ratio, ones), big_bias)


def _pixel_scale(kernel: Tensor) -> Tensor:
    """Undoes the pixel normalisation in a first convolution (O, 3, ...)."""
    return pixel_std().view(1, -1, *(1,) * (kernel.dim() - 2))


def _taps(graph: FoldedGraph, name: str, count: int) -> Tensor:
    """The taps (r, C) of a temporal aggregation module."""
    if name.startswith("stem."):
        other = "stem.big_tam" if name == "stem.tam" else "stem.tam"  # a shared stem has the module once
        rows = [graph.tensor(f"{name}.taps.{row}", f"{other}.taps.{row}") for row in range(count)]
        return torch.stack([row.flatten() for row in rows])
    if f"{name}.whole.weight" in graph:
        return _expect(graph, f"{name}.whole.weight", count)
    # The graph leaves out the rows that are zero for every network.
    matrices = [matrix[matrix.any(dim=1)] for matrix in fold_matrix(count)]
    folded = [
        _expect(graph, f"{name}.{branch}.weight", len(matrix))
        for branch, matrix in zip(("little", "big"), matrices, strict=True)
    ]
    solution: Tensor = torch.linalg.lstsq(torch.cat(matrices).double(), torch.cat(folded).double()).solution
    return solution.float()


def _expect(graph: FoldedGraph, name: str, rows: int) -> Tensor:
    """A depthwise kernel (C, 1, rows, 1) as (rows, C)."""
    kernel = graph.tensor(name).flatten(1).t()
    if len(kernel) != rows:
        raise CheckpointError(
            f"{graph.folder}: {name} has {len(kernel)} taps instead of {rows}, so its weights cannot be "
            "restored; start from the checkpoint that it was exported from"
        )
    return kernel


def _compare(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Check that the restored network gives the results of the graph.

    Raises:
        CheckpointError: it does not.
    """
    clips = probe_clips(manifest.clip)
    session = onnxruntime.InferenceSession(folder / GRAPH_FILE, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["logits"], clips)
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(clips[item.name])) for item in manifest.inputs))
    difference = np.abs(evidence.mean(1).numpy() - expected).max() / np.abs(expected).max()
    if not difference <= MAX_DIFFERENCE:
        raise CheckpointError(
            f"{folder}: the restored network differs from its graph by {difference:.1e} of the largest "
            "logit; start from the checkpoint that it was exported from"
        )

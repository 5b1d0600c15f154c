"""Weights from and for other projects: safetensors, and the ResNets of torchvision, timm and mmaction2."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_export.checkpoints.checkpoint import load_network, save_checkpoint
from model_export.checkpoints.initialise import initialise_from
from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.registry import build, parse_architecture
from service.packages.folders import bundled_models
from tests.model_export.checkpoints.test_checkpoint import SMALL
from tests.model_export.command import blvnet

TRAINING = {"labels": ["a", "b", "c", "d", "e"], "mirrored": [1, 0, None, 3, 4], "step": 7}


def resnet_weights() -> dict[str, Tensor]:
    """A ResNet-18 under the names of torchvision and timm."""
    torch.manual_seed(3)
    return build(SMALL).state_dict()


def as_mmaction(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of mmaction2: a convolution and its normalisation are one module."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("fc."):
            renamed[f"cls_head.fc_cls.{name.removeprefix('fc.')}"] = tensor
            continue
        name = re.sub(r"(?<![a-z])conv(\d)\.", r"conv\1.conv.", name)
        name = re.sub(r"(?<![a-z])bn(\d)\.", r"conv\1.bn.", name)
        name = name.replace("downsample.0.", "downsample.conv.").replace("downsample.1.", "downsample.bn.")
        renamed[f"backbone.{name}"] = tensor
    return renamed


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda weights: weights, id="torchvision"),
        pytest.param(lambda weights: {"model": weights, "epoch": 3}, id="timm, in training"),
        pytest.param(lambda weights: {"state_dict_ema": weights, "arch": "resnet18"}, id="timm, averaged"),
        pytest.param(lambda weights: {f"_orig_mod.{k}": v for k, v in weights.items()}, id="compiled"),
        pytest.param(
            lambda weights: {"state_dict": {f"model.{k}": v for k, v in weights.items()}}, id="Lightning"
        ),
        pytest.param(lambda weights: {"state_dict": as_mmaction(weights)}, id="mmaction2"),
    ],
)
@pytest.mark.parametrize("architecture", ["tsn-resnet-18-f2", "i3d-resnet-18-f2"])
def test_resnets_of_other_projects_initialise_ours(wrap: object, architecture: str, tmp_path: Path) -> None:
    weights = resnet_weights()
    torch.save(wrap(weights), tmp_path / "weights.pth")  # type: ignore[operator]
    config = parse_architecture(architecture, num_classes=3, size=32)
    network = build(config)
    report = initialise_from(network, config, tmp_path / "weights.pth")
    assert set(report.fresh) == {"fc.weight", "fc.bias"}
    assert report.unused == ["fc.bias", "fc.weight"]
    kernel = network.get_parameter("layer4.1.conv2.weight").detach()
    if kernel.dim() == 5:
        kernel = kernel.sum(2)
    torch.testing.assert_close(kernel, weights["layer4.1.conv2.weight"])


def test_safetensors_of_another_project_initialise_ours(tmp_path: Path) -> None:
    save_file(resnet_weights(), tmp_path / "model.safetensors", {"format": "pt"})
    config = parse_architecture("tam-resnet-18-f2", num_classes=3, size=32)
    report = initialise_from(build(config), config, tmp_path / "model.safetensors")
    assert {name.rpartition(".")[2] for name in report.fresh} == {"taps", "weight", "bias"}


def test_deep_stem_is_refused_with_advice(tmp_path: Path) -> None:
    weights = resnet_weights()
    weights["conv1.0.weight"] = weights.pop("conv1.weight")
    torch.save(weights, tmp_path / "resnet18d.pth")
    config = parse_architecture("tsn-resnet-18-f2", num_classes=3, size=32)
    with pytest.raises(CheckpointError, match=r"stem of three convolutions .* such as timm's resnet50$"):
        initialise_from(build(config), config, tmp_path / "resnet18d.pth")


def test_safetensors_file_keeps_network_labels_and_weights(tmp_path: Path) -> None:
    weights = resnet_weights()
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, SMALL, weights, TRAINING | {"optimizer": {"state": torch.zeros(2)}})
    network, config, checkpoint = load_network(path)
    assert (config, checkpoint.training) == (SMALL, TRAINING)  # the optimiser's state is left out
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert load_file(path).keys() == weights.keys()  # as any other program reads it


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04"])
def test_damaged_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file, or is damaged"):
        load_network(path)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_network(tmp_path / "y.safetensors")


def test_convert_writes_either_format_and_never_over_a_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", SMALL, resnet_weights(), TRAINING)
    done = blvnet("convert", tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert done.status == 0, done.stderr
    assert "b.safetensors: tsn-resnet-18, " in done.stdout
    assert blvnet("convert", tmp_path / "b.safetensors", tmp_path / "c.pt").status == 0
    assert load_network(tmp_path / "c.pt")[2].training == TRAINING
    again = blvnet("convert", tmp_path / "a.pt", tmp_path / "c.pt")
    assert again.stderr.strip().endswith("c.pt exists: choose another name, or remove it")
    assert (
        "must end with .safetensors or .pt"
        in blvnet("convert", tmp_path / "a.pt", tmp_path / "d.onnx").stderr
    )


def test_convert_keeps_the_outputs_of_some_labels(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", SMALL, resnet_weights(), TRAINING)
    (tmp_path / "labels.txt").write_text("b\na\nc\n")
    done = blvnet("convert", tmp_path / "a.pt", tmp_path / "b.pt", "--labels", tmp_path / "labels.txt")
    assert done.status == 0, done.stderr
    whole, (kept, config, checkpoint) = load_network(tmp_path / "a.pt")[0], load_network(tmp_path / "b.pt")
    assert config.num_classes == 3
    assert checkpoint.training == TRAINING | {"labels": ["b", "a", "c"], "mirrored": [1, 0, None]}
    assert torch.equal(kept.fc.weight, whole.fc.weight[[1, 0, 2]])
    assert torch.equal(kept.fc.bias, whole.fc.bias[[1, 0, 2]])
    counted = sum(parameter.numel() for parameter in kept.parameters())
    assert done.stdout.endswith(f"{counted:,} parameters\n")


@pytest.mark.parametrize(
    ("training", "message"),
    [(TRAINING, "the network has no label 'z'"), ({}, "the checkpoint records no labels")],
)
def test_only_labels_of_the_network_can_be_kept(
    training: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pt", SMALL, resnet_weights(), training)
    (tmp_path / "labels.txt").write_text("a\nz\n" if training else "a\n")
    done = blvnet("convert", tmp_path / "a.pt", tmp_path / "b.pt", "--labels", tmp_path / "labels.txt")
    assert (done.status, message in done.stderr) == (1, True)
    assert not (tmp_path / "b.pt").exists()


def test_converted_package_still_lacks_statistics_for_training(tmp_path: Path) -> None:
    files = [bundled_models() / "blvnet-tam-mini", tmp_path / "a.safetensors", tmp_path / "b.pt"]
    for source, target in pairwise(files):
        done = blvnet("convert", source, target)
        assert done.status == 0, done.stderr
        network, config, checkpoint = load_network(target)
        assert checkpoint.folded
        assert initialise_from(network, config, target).folded

"""Checkpoints: published layouts load strictly, ours load completely, damaged files give one-line errors."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_export.checkpoints.checkpoint import (
    configure,
    load_network,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from model_export.checkpoints.layouts import Layout, Naming
from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.config import Family, ModelConfig
from model_export.networks.registry import build, parse_architecture
from tests.golden.cases import golden

Weights = dict[str, Tensor]
BLVNET = "blvnet-tam-50-a2-b4-f8x2"
SMALL = ModelConfig(Family.TSN_RESNET, "18", frames=4, num_classes=5, size=32)


def hollow(keys: list[tuple[str, tuple[int, ...]]]) -> Weights:
    """Tensors of any shape that take no space in a file: views of a single zero."""
    return {key: torch.zeros(()).expand(shape) for key, shape in keys}


def hollow_golden(name: str) -> Weights:
    return hollow(list(golden(name).keys))


def hollow_network(name: str, layout: Layout, classes: int = 174) -> Weights:
    """A published file of a network without a golden case."""
    config = parse_architecture(name, num_classes=classes)
    with torch.device("meta"):
        state = build(config).state_dict()
    naming = Naming(layout, dropout_head=layout is Layout.BLVNET_TAM)
    pairs = [(key, tensor, naming.names(key, config.taps)) for key, tensor in state.items()]
    return hollow(
        [
            (name, tuple(tensor.shape) if len(names) == 1 else (tensor.shape[1], 1, 1, 1))
            for _, tensor, names in pairs
            for name in names
        ]
    )


def saved(document: object, folder: Path) -> Path:
    torch.save(document, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar"


def without_dropout(weights: Weights) -> Weights:
    return {key.replace("new_fc", "baseline_model.fc"): value for key, value in weights.items()}


def in_parallel(weights: Weights) -> Weights:
    return {f"module.{key}": value for key, value in weights.items()}


def imagenet(weights: Weights) -> Weights:
    """The layout of IBM/BigLittleNet: no prefix, no taps, 1000 classes."""
    bare = {key.replace("new_fc", "fc").removeprefix("baseline_model."): t for key, t in weights.items()}
    return {
        key: torch.zeros(()).expand(1000, *tensor.shape[1:]) if key.startswith("fc.") else tensor
        for key, tensor in bare.items()
        if "tam." not in key
    }


@pytest.mark.parametrize(
    "document",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights},
        lambda weights: {"state_dict": in_parallel(weights), "epoch": 3, "optimizer": {"state": {}}},
        without_dropout,
        lambda weights: in_parallel(without_dropout(weights)),
    ],
)
def test_published_layouts_load(document: Callable[[Weights], object], tmp_path: Path) -> None:
    path = saved(document(hollow_golden(BLVNET)), tmp_path)
    network, config, _ = load_network(path, BLVNET)
    assert config == ModelConfig(Family.BLVNET_TAM, "50", frames=16, num_classes=174)
    assert all(not tensor.any() for tensor in network.state_dict().values())


def test_head_without_dropout_is_the_classifier(tmp_path: Path) -> None:
    weights = without_dropout(hollow_golden(BLVNET)) | {"baseline_model.fc.bias": torch.arange(174.0)}
    network, _, _ = load_network(saved(weights, tmp_path), BLVNET)
    assert torch.equal(network.get_parameter("fc.bias"), torch.arange(174.0))


@pytest.mark.parametrize(
    ("name", "layout", "found"),
    [
        (
            "blvnet-tam-152-a4-b2-f8x2-blend7",
            Layout.BLVNET_TAM,
            "blvnet-tam, depth 152, alpha 4, beta 2, 7 taps, 174 classes",
        ),
        (
            "blvnet-tam-101-a1-b4-f8x2",
            Layout.BLVNET_TAM,
            "blvnet-tam, depth 101, alpha 1, beta 4, 3 taps, 174 classes",
        ),
        (
            "blvnet-50-f8x2",
            Layout.BLRESNET,
            "blvnet or blvnet-tsm, depth 50, alpha 2, beta 3 to 64, 174 classes",
        ),
        ("tam-resnet-101-f8-blend5", Layout.RESNET, "tam-resnet, depth 101, 5 taps, 174 classes"),
        ("tsn-resnet-18-f8", Layout.RESNET, "tsn-resnet or tsm-resnet, depth 18, 174 classes"),
        ("i3d-resnet-101-f8", Layout.RESNET, "i3d-resnet, depth 101, 174 classes"),
        ("tam-i3d-resnet-34-f8", Layout.RESNET, "tam-i3d-resnet, depth 34, 3 taps, 174 classes"),
    ],
)
def test_network_is_detected_from_tensors(name: str, layout: Layout, found: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(hollow_network(name, layout), tmp_path))
    assert checkpoint.detected is not None
    assert checkpoint.detected.describe() == found
    assert configure(checkpoint, name) == parse_architecture(name, num_classes=174)


def test_taps_and_classes_are_those_of_the_file(tmp_path: Path) -> None:
    weights = hollow_network(f"{BLVNET}-blend5", Layout.BLVNET_TAM, classes=400)
    config = configure(read_checkpoint(saved(weights, tmp_path)), "blvnet-tam-50", frames=32, size=160)
    assert (config.taps, config.num_classes, config.frames, config.size) == (5, 400, 32, 160)


@pytest.mark.parametrize(
    ("architecture", "taps", "message"),
    [
        ("blvnet-tam-101-a2-b4-f8x2", None, "it holds depth 50, not 101"),
        ("blvnet-tam-50-a4-b4-f8x2", None, "it holds alpha 2, not 4"),
        ("blvnet-tam-50-a2-b2-f8x2", None, "it holds beta 3 to 64, not 2"),
        ("blvnet-tam-50-a2-b4-f8x2-blend5", None, "it holds 3 taps, not 5"),
        ("blvnet-tam-50-a2-b4-f8x2", 7, "it holds 3 taps, not 7"),
        ("blvnet-50-a2-b4-f8x2", None, "it holds blvnet-tam, not blvnet"),
        ("blvnet-tam-50-a2-b4-f8x2-dual", None, "it holds a shared stem, not a dual one"),
        ("tam-resnet-50-f8", None, "it holds blvnet-tam, not tam-resnet"),
    ],
)
def test_architecture_that_contradicts_the_tensors_is_refused(
    architecture: str, taps: int | None, message: str, tmp_path: Path
) -> None:
    path = saved(hollow_golden(BLVNET), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path, architecture, taps=taps)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_published_file_needs_an_architecture(tmp_path: Path) -> None:
    path = saved(hollow_golden("tsn-resnet-50-f8"), tmp_path)
    with pytest.raises(CheckpointError, match="holds tsn-resnet or tsm-resnet, depth 50, 174 classes; name"):
        load_network(path)


def drop(key: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            drop("baseline_model.layer2.big.1.conv2.weight"),
            "missing baseline_model.layer2.big.1.conv2.weight",
        ),
        (drop("baseline_model.layer1.tam.next.weight"), "missing baseline_model.layer1.tam.next.weight"),
        (drop("new_fc.bias"), "missing new_fc.bias"),
        (drop("new_fc.weight"), "there is no tensor new_fc.weight"),
        (
            lambda weights: weights | {"baseline_model.extra.weight": torch.zeros(1)},
            "unexpected baseline_model.extra.weight",
        ),
        (
            lambda weights: weights | {"baseline_model.bn1.weight": torch.zeros(32)},
            "baseline_model.bn1.weight is (32,), not (64,)",
        ),
        (
            lambda weights: {key: tensor for key, tensor in weights.items() if "bn1" not in key},
            "and 95 more",
        ),
    ],
)
def test_tensors_that_do_not_match_are_named(
    change: Callable[[Weights], Weights], message: str, tmp_path: Path
) -> None:
    path = saved(change(hollow_golden(BLVNET)), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path, BLVNET)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


class Malicious:
    """An object whose unpickling creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"state_dict": {}, "hook": evil}])
def test_pickle_that_runs_code_is_refused_and_does_not_run(
    wrap: Callable[[Malicious], object], tmp_path: Path
) -> None:
    path = saved(wrap(Malicious(tmp_path / "harm")), tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read without running Python code from the file"):
        read_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def test_pickled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"save the network's state_dict\(\) instead"):
        read_checkpoint(saved({"model": nn.Linear(2, 2)}, tmp_path))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.99])
def test_truncated_checkpoint_is_refused(kept: float, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    weights = {f"tensor.{index}": torch.randn(1000) for index in range(20)}
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match="cut short"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(range(256)) * 8,
        b"PK\x03\x04" + bytes(200),
        pickle.dumps({"weights": [1, 2]}, protocol=5),
        b"\x80\x02}q\x00.",
    ],
)
def test_file_that_is_not_a_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "file")
    assert caught.value.message.startswith(f"{tmp_path / 'file'}: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([torch.zeros(1)], "holds a list, not a network's tensors by name"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"epoch": 3}, "holds 'epoch', a int, among a network's tensors"),
        ({"a": torch.zeros(1)}, "those of none of the supported layouts"),
        ({"baseline_model.a": torch.zeros(1)}, "those of none of the supported layouts"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "none of the depths 18, 34"),
        ({"layer1.big.0.conv1.weight": torch.zeros(1)}, "none of the depths 50, 101, 152"),
        (
            {"format": "blvnet-serve", "version": 9},
            "has version 9 of this project's format; version 1 is supported",
        ),
        ({"format": "blvnet-serve", "version": 1}, "config, weights or training are missing"),
    ],
)
def test_document_without_a_network_is_refused(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved(document, tmp_path))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_numpy_numbers_in_a_training_checkpoint_are_read(tmp_path: Path) -> None:
    document = {
        "state_dict": hollow_golden("tsn-resnet-50-f8"),
        "best_top1": np.float64(46.4),
        "epoch": np.int64(3),
        "scheduler": {"milestones": Counter([15, 30])},
    }
    training = read_checkpoint(saved(document, tmp_path)).training
    assert (training["best_top1"], training["epoch"]) == (46.4, 3)


def test_own_checkpoint_has_weights_and_training_state(tmp_path: Path) -> None:
    network = build(SMALL)
    save_checkpoint(tmp_path / "last.pt", SMALL, network.state_dict(), {"step": 7, "state": torch.ones(2)})
    loaded, config, checkpoint = load_network(tmp_path / "last.pt")
    assert config == SMALL
    assert checkpoint.training["step"] == 7
    assert torch.equal(checkpoint.training["state"], torch.ones(2))
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)
    assert not loaded.training


@pytest.mark.parametrize("architecture", [None, "tsn-resnet-18", "tsn-resnet-18-f4"])
def test_own_checkpoint_agrees_with_its_name_and_takes_another_size(
    architecture: str | None, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "last.pt", SMALL, build(SMALL).state_dict())
    checkpoint = read_checkpoint(tmp_path / "last.pt")
    assert configure(checkpoint, architecture, size=64).size == 64


@pytest.mark.parametrize(
    ("architecture", "frames", "message"),
    [
        ("tsn-resnet-34", None, "with depth 18, not 34"),
        ("tsm-resnet-18", None, "with family tsn-resnet, not tsm-resnet"),
        ("tsn-resnet-18-f8", None, "with frames 4, not 8"),
        (None, 8, "with frames 4, not 8"),
    ],
)
def test_own_checkpoint_refuses_a_contradiction(
    architecture: str | None, frames: int | None, message: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "last.pt", SMALL, build(SMALL).state_dict())
    with pytest.raises(CheckpointError, match=message):
        configure(read_checkpoint(tmp_path / "last.pt"), architecture, frames=frames)


def test_own_checkpoint_with_a_tensor_missing_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", SMALL, drop("layer1.0.bn1.bias")(build(SMALL).state_dict()))
    with pytest.raises(CheckpointError, match=r"missing layer1\.0\.bn1\.bias"):
        load_network(tmp_path / "last.pt")


def test_failed_save_leaves_the_previous_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, SMALL, {"a": torch.zeros(1)})
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, SMALL, {}, {"state": lambda: None})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_half_precision_weights_are_restored_as_float32(tmp_path: Path) -> None:
    weights = {key: tensor.half() for key, tensor in hollow_golden("tsn-resnet-50-f8").items()}
    checkpoint = read_checkpoint(saved(weights, tmp_path))
    network = restore(checkpoint, configure(checkpoint, "tsn-resnet-50-f8"))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_options_of_a_training_script_in_the_file_get_working_advice(tmp_path: Path) -> None:
    document = {"state_dict": hollow_golden("tsn-resnet-50-f8"), "args": argparse.Namespace(lr=0.1)}
    path = saved(document, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds an argparse\.Namespace") as caught:
        read_checkpoint(path)
    assert "\n" not in caught.value.message
    advice = caught.value.message.partition("python -c ")[2]
    subprocess.run([sys.executable, "-c", advice.strip('"')], cwd=tmp_path, check=True)
    load_network(tmp_path / "weights.pt", "tsn-resnet-50-f8")

"""Weights restored from a model package: the function of the graph, ready to be trained."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.checkpoints.checkpoint import load_network, read_checkpoint
from model_export.checkpoints.initialise import initialise_from
from model_export.checkpoints.package import restore_package
from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.batch_norms import BatchNorm, measure_statistics, set_statistics
from model_export.networks.normalise import normalise
from model_export.networks.registry import build, parse_architecture
from service.packages.folders import bundled_models, scan_packages
from service.packages.manifest import read_manifest
from service.packages.probe_clips import probe_clips

BUNDLED = bundled_models() / "blvnet-tam-mini"
FOLDER = scan_packages(bundled_models()).packages[0].folder


def probe_inputs() -> list[torch.Tensor]:
    manifest = read_manifest(FOLDER)
    clips = probe_clips(manifest.clip)
    return [normalise(torch.from_numpy(clips[item.name])) for item in manifest.inputs]


def test_restored_network_has_the_answers_that_the_package_records() -> None:
    network, config, checkpoint = load_network(BUNDLED)
    manifest = read_manifest(FOLDER)
    assert manifest.reference is not None
    with torch.inference_mode():
        logits = network(*probe_inputs()).mean(1).numpy()
    np.testing.assert_allclose(logits, manifest.reference.logits, rtol=0, atol=1e-4)
    assert config.architecture == manifest.architecture
    assert checkpoint.folded
    assert checkpoint.training["labels"] == list(manifest.labels)
    assert checkpoint.training["mirrored"] == list(manifest.mirror or ())


@pytest.mark.parametrize("path", [BUNDLED, FOLDER, FOLDER / "model.onnx"])
def test_package_is_named_by_its_folder_its_version_or_its_graph(path: Path) -> None:
    assert read_checkpoint(path).path == FOLDER / "model.onnx"


def test_statistics_change_training_and_not_the_output() -> None:
    network, _, _ = restore_package(FOLDER)
    inputs = probe_inputs()
    with torch.inference_mode():
        before = network(*inputs)
        normalised_by_batch = copy.deepcopy(network).train()(*inputs)
    measure_statistics(network, [inputs])
    with torch.inference_mode():
        torch.testing.assert_close(network(*inputs), before, rtol=1e-4, atol=1e-3)
        network.dropout.eval()
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.train()
        torch.testing.assert_close(network(*inputs), before, rtol=1e-3, atol=1e-2)
    assert (normalised_by_batch - before).abs().max() > 1  # the same network before it had statistics


def test_new_statistics_keep_the_map_of_a_normalisation() -> None:
    norm = torch.nn.BatchNorm2d(3).eval()
    x = torch.randn(4, 3, 5, 5)
    norm.weight.data = torch.tensor([0.5, -2.0, 1.0])
    before = norm(x)
    set_statistics(norm, torch.tensor([1.0, 2.0, -1.0]), torch.tensor([4.0, 0.25, 9.0]))
    torch.testing.assert_close(norm(x), before)


def test_package_initialises_a_network_with_other_labels() -> None:
    config = parse_architecture("blvnet-tam-mini", num_classes=3)
    network = build(config)
    report = initialise_from(network, config, BUNDLED, ["a", "b", "c"])
    assert report.folded
    assert report.fresh == {"fc.weight": "other labels", "fc.bias": "other labels"}
    restored, _, _ = restore_package(FOLDER)
    for name in ("stem.conv1.weight", "layer3.tam.taps", "layer4.1.conv3.weight"):
        torch.testing.assert_close(network.get_parameter(name), restored.get_parameter(name))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("precision", "int8", "this package holds int8: give the fp32 package"),
        ("sha256", "0" * 64, "model.onnx has SHA-256"),
        ("architecture", "tam-mini", "has no tensor conv1.convolution.weight"),
        ("architecture", "other", "unknown architecture 'other'"),
    ],
)
def test_package_whose_weights_cannot_be_restored_is_refused(
    field: str, value: str, message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "package")
    document = json.loads((folder / "model.json").read_text())
    document[field] = value
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(Exception, match=re.escape(message)) as error:
        read_checkpoint(folder)
    assert not isinstance(error.value, AssertionError)


def test_weights_that_do_not_give_the_graphs_answers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_export.checkpoints.package.fold_matrix", lambda taps: torch.ones(2, 2, taps))
    with pytest.raises(CheckpointError, match=r"differs from its graph by .* of the largest logit"):
        restore_package(FOLDER)

"""Initialisation from another checkpoint: tensors loaded, adapted and left out, and the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model_export.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from model_export.checkpoints.initialise import fit_channels, inflate, initialise_from
from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.registry import build, parse_architecture
from tests.model_export.checkpoints.test_checkpoint import (
    BLVNET,
    SMALL,
    hollow_golden,
    imagenet,
    in_parallel,
    saved,
)

LABELS = ["red", "green", "blue", "up", "down"]


def test_imagenet_weights_initialise_all_but_taps_and_classifier(tmp_path: Path) -> None:
    config = parse_architecture("blvnet-tam-50-f2x2-dual", num_classes=5, size=32)
    network = build(config)
    taps = network.get_parameter("layer1.tam.taps").clone()
    path = saved({"state_dict": in_parallel(imagenet(hollow_golden(BLVNET)))}, tmp_path)
    report = initialise_from(network, config, path)
    assert {name.rpartition(".")[0] for name in report.fresh if "tam" not in name} == {"fc"}
    assert torch.equal(network.get_parameter("layer1.tam.taps"), taps)
    assert not network.get_parameter("layer3.big.0.conv1.weight").any()
    assert not network.get_parameter("stem.big_bn1.weight").any()
    assert report.adapted["stem.big_bn1.weight"] == "copied from the little input"
    assert len(report.copied) + len(report.adapted) + len(report.fresh) == len(network.state_dict())


def test_published_video_network_initialises_taps_too(tmp_path: Path) -> None:
    config = parse_architecture("blvnet-tam-50-f2x2-dual", num_classes=5, size=32)
    network = build(config)
    report = initialise_from(network, config, saved(hollow_golden(BLVNET), tmp_path))
    assert set(report.fresh) == {"fc.weight", "fc.bias"}
    assert not network.get_parameter("stem.big_tam.taps").any()


def test_frame_network_initialises_a_3d_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "2d.pt", SMALL, build(SMALL).state_dict(), {"labels": LABELS})
    config = parse_architecture("i3d-resnet-18-f4", num_classes=5, size=32)
    network = build(config)
    report = initialise_from(network, config, tmp_path / "2d.pt", LABELS)
    assert report.fresh == {}
    assert len(report.adapted) == 20
    assert set(report.adapted.values()) == {"2D to 3D"}
    source = read_checkpoint(tmp_path / "2d.pt").weights["layer2.0.conv1.weight"]
    torch.testing.assert_close(network.get_parameter("layer2.0.conv1.weight").sum(2), source)


@pytest.mark.parametrize(
    ("in_file", "labels", "copied", "reason"),
    [
        (LABELS, LABELS, True, None),
        (LABELS, LABELS[::-1], False, "other labels"),  # the same number, in another order
        (LABELS, [*LABELS[:4], "left"], False, "other labels"),
        (None, LABELS, False, "labels unknown"),
        (LABELS, None, False, "other labels"),
    ],
)
def test_classifier_is_copied_only_for_the_same_labels(
    in_file: list[str] | None, labels: list[str] | None, copied: bool, reason: str | None, tmp_path: Path
) -> None:
    source, target = build(SMALL), build(SMALL)
    training = {} if in_file is None else {"labels": in_file}
    save_checkpoint(tmp_path / "x.pt", SMALL, source.state_dict(), training)
    report = initialise_from(target, SMALL, tmp_path / "x.pt", labels)
    assert torch.equal(target.fc.weight, source.fc.weight) is copied
    assert report.fresh.get("fc.weight") == reason
    assert ("fc.weight" in report.unused) is not copied


def test_report_lists_what_was_loaded_adapted_and_left_out(tmp_path: Path) -> None:
    config = parse_architecture("blvnet-tam-50-f2x2-dual", num_classes=5, size=32)
    path = saved(hollow_golden(BLVNET), tmp_path)
    lines = initialise_from(build(config), config, path).lines()
    assert lines[0].startswith(f"initialised from {path} (blvnet-tam, depth 50, alpha 2, ")
    assert lines[0].endswith(" tensors copied")
    assert lines[1].startswith("adapted (copied from the little input): stem.big_bn1.weight, ")
    assert lines[2] == "not loaded (labels unknown): fc.weight, fc.bias"
    assert lines[3] == "left out of the file: new_fc.bias, new_fc.weight"


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("blvnet-tam-101-f2x2", "it lacks layer1.big.2.conv1.weight"),
        (
            "blvnet-tam-50-a4-f2x2",
            "l_conv0.weight is (32, 64, 3, 3), the network's is (16, 64, 3, 3) (the file holds blvnet-tam",
        ),
        ("tam-resnet-50-f4", "does not fit tam-resnet-50: "),
    ],
)
def test_weights_of_another_network_do_not_initialise(
    architecture: str, message: str, tmp_path: Path
) -> None:
    config = parse_architecture(architecture, num_classes=5, size=32)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        initialise_from(build(config), config, saved(hollow_golden(BLVNET), tmp_path))


def test_kernel_for_more_channels_gives_the_same_for_equal_channels() -> None:
    kernel = torch.randn(4, 3, 7, 7, dtype=torch.float64)
    plane = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    fitted = fit_channels(kernel, 10)
    assert fitted.shape == (4, 10, 7, 7)
    torch.testing.assert_close(
        F.conv2d(plane.expand(1, 10, 9, 9), fitted), F.conv2d(plane.expand(1, 3, 9, 9), kernel)
    )


def test_inflated_kernel_gives_the_output_of_the_frame_for_a_still_video() -> None:
    kernel = torch.randn(4, 2, 3, 3)
    image = torch.randn(1, 2, 5, 5)
    video = image.unsqueeze(2).expand(1, 2, 3, 5, 5)
    torch.testing.assert_close(F.conv3d(video, inflate(kernel, 3))[:, :, 0], F.conv2d(image, kernel))

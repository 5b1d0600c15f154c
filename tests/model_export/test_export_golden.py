"""Published checkpoints through `blvnet export`: the graph gives the logits of the authors' networks."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from service.manifest import read_manifest
from tests.golden.cases import BLVNET_CASES, TOLERANCE, golden
from tests.model_export.command import blvnet

# How a user names each network: options in the name, or beside it, taps said or read off the file.
NETWORKS = {
    "blvnet-tam-50-a2-b4-f8x2": ("--arch", "blvnet-tam-50-a2-b4-f8x2", "--stem", "shared"),
    "blvnet-tam-50-a2-b4-f8x2-blend5": ("--arch", "blvnet-tam-50", "--frames", 16, "--blending-frames", 5),
    "blvnet-tam-101-a2-b4-f8x2": ("--arch", "blvnet-tam-101", "--frames", 16),
    "tam-resnet-50-f8": ("--arch", "tam-resnet-50", "--frames", 8),
    "tsn-resnet-50-f8": ("--arch", "tsn-resnet-50", "--frames", 8),
    "i3d-resnet-50-f8": ("--arch", "i3d-resnet-50", "--frames", 8),
}
SINGLE_STREAM = [("frames", "all")]
TWO_STREAMS = [("little", "even"), ("big", "odd")]


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_graph_gives_the_authors_logits(name: str, tmp_path: Path) -> None:
    case = golden(name)
    checkpoint, labels, models = tmp_path / "x.pth", tmp_path / "labels.json", tmp_path / "models"
    torch.save({"state_dict": {f"module.{key}": value for key, value in case.weights().items()}}, checkpoint)
    labels.write_text(json.dumps({f"label {index}": str(index) for index in range(len(case.logits))}))
    options = ("--checkpoint", checkpoint, "--labels", labels, "--out", models, "--name", "imported")
    result = blvnet("export", *options, *NETWORKS[name])
    assert result.status == 0, result.stderr
    folder = models / "imported" / "1"
    streams = TWO_STREAMS if name in BLVNET_CASES else SINGLE_STREAM
    inputs = read_manifest(folder).clip.inputs
    assert [(item.name, item.frames) for item in inputs] == streams
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    feed = {item.name: frames for item, frames in zip(inputs, case.streams(), strict=True)}
    assert case.difference(session.run(["logits"], feed)[0][0]) < TOLERANCE

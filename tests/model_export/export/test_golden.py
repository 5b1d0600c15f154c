"""The authors' weights in an exported graph give the authors' logits.

One published checkpoint goes through `blvnet export`. For the others only the plan and the graph are made,
without the comparisons with PyTorch of an export at 224 pixels: `networks/test_golden.py` compares those
networks with the authors', and the graphs are compared here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from model_export.export.onnx_graph import build_graph
from model_export.export.plan import ExportRequest, plan_export
from model_export.networks.config import Stem
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec
from service.packages.manifest import read_manifest
from tests.golden.cases import BLVNET_CASES, TOLERANCE, Golden, golden
from tests.model_export.command import blvnet

COMMAND = "blvnet-tam-50-a2-b4-f8x2-blend5"
# Ways to name a network: options in the name or separate, taps given or detected in the file.
NETWORKS: dict[str, dict[str, Any]] = {
    "blvnet-tam-50-a2-b4-f8x2": {"architecture": "blvnet-tam-50-a2-b4-f8x2", "stem": Stem.SHARED},
    "blvnet-tam-101-a2-b4-f8x2": {"architecture": "blvnet-tam-101", "frames": 16},
    "tam-resnet-50-f8": {"architecture": "tam-resnet-50", "frames": 8},
    "tsn-resnet-50-f8": {"architecture": "tsn-resnet-50", "frames": 8},
    "i3d-resnet-50-f8": {"architecture": "i3d-resnet-50", "frames": 8},
}
SINGLE_STREAM = [("frames", "all")]
TWO_STREAMS = [("little", "even"), ("big", "odd")]


def write_published(case: Golden, folder: Path) -> tuple[Path, Path]:
    """A checkpoint in the published layout, and names for its classes."""
    checkpoint, labels = folder / "x.pth", folder / "labels.json"
    torch.save({"state_dict": {f"module.{key}": value for key, value in case.weights().items()}}, checkpoint)
    labels.write_text(json.dumps({f"label {index}": str(index) for index in range(len(case.logits))}))
    return checkpoint, labels


def check_logits(case: Golden, clip: ClipSpec, graph: bytes | Path) -> None:
    streams = TWO_STREAMS if case.name in BLVNET_CASES else SINGLE_STREAM
    assert [(item.name, item.frames) for item in clip.inputs] == streams
    session = onnxruntime.InferenceSession(graph)
    feed = {item.name: frames for item, frames in zip(clip.inputs, case.streams(), strict=True)}
    [logits] = session.run(["logits"], feed)
    assert case.difference(logits[0]) < TOLERANCE


def test_exported_package_gives_the_authors_logits(tmp_path: Path) -> None:
    case = golden(COMMAND)
    checkpoint, labels = write_published(case, tmp_path)
    network = ("--arch", "blvnet-tam-50", "--frames", case.frames, "--blending-frames", 5)
    options = ("--labels", labels, "--out", tmp_path / "models", "--name", "imported")
    result = blvnet("export", "--checkpoint", checkpoint, *network, *options)
    assert result.status == 0, result.stderr
    package = tmp_path / "models/imported/1"
    for graph in ("model.onnx", "openvino.onnx"):
        check_logits(case, read_manifest(package).clip, package / graph)


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_gives_the_authors_logits(name: str, tmp_path: Path) -> None:
    case = golden(name)
    checkpoint, labels = write_published(case, tmp_path)
    request = ExportRequest(checkpoint, tmp_path / "models", labels=labels, **NETWORKS[name])
    plan = plan_export(request, ProgressReporter())
    graph = build_graph(plan.network, plan.clip, plan.graphs[0].variant)
    check_logits(case, plan.clip, graph.SerializeToString())

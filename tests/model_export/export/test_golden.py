"""Published checkpoints through `blvnet export`: the graph gives the logits of the authors' networks."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import onnxruntime
import pytest
import torch

from service.machine.cores import usable_cores
from service.packages.manifest import read_manifest
from tests.golden.cases import BLVNET_CASES, TOLERANCE, golden
from tests.model_export.command import blvnet

# Ways to name a network: options in the name or separate, taps given or detected in the file.
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


@dataclass(frozen=True)
class Exported:
    """The inputs of an exported graph, and the difference of its logits from the authors'."""

    streams: list[tuple[str, str]]
    difference: float


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Exported]]]:
    """All exports, one per core at a time: most of an export runs on one thread."""
    pool = ProcessPoolExecutor(usable_cores(), get_context("spawn"), warnings.simplefilter, ("error",))
    try:
        yield {name: pool.submit(exported, name, tmp_path_factory.mktemp(name)) for name in NETWORKS}
    finally:
        pool.shutdown(cancel_futures=True)


def exported(name: str, folder: Path) -> Exported:
    """Export one network, in a separate process."""
    case = golden(name)
    checkpoint, labels, models = folder / "x.pth", folder / "labels.json", folder / "models"
    torch.save({"state_dict": {f"module.{key}": value for key, value in case.weights().items()}}, checkpoint)
    labels.write_text(json.dumps({f"label {index}": str(index) for index in range(len(case.logits))}))
    options = ("--checkpoint", checkpoint, "--labels", labels, "--out", models, "--name", "imported")
    result = blvnet("export", *options, *NETWORKS[name])
    assert result.status == 0, result.stderr
    package = models / "imported" / "1"
    inputs = read_manifest(package).clip.inputs
    session = onnxruntime.InferenceSession(package / "model.onnx")
    feed = {item.name: frames for item, frames in zip(inputs, case.streams(), strict=True)}
    [logits] = session.run(["logits"], feed)
    shutil.rmtree(folder)
    return Exported([(item.name, item.frames) for item in inputs], case.difference(logits[0]))


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_graph_gives_the_authors_logits(name: str, exports: dict[str, Future[Exported]]) -> None:
    found = exports[name].result()
    assert found.streams == (TWO_STREAMS if name in BLVNET_CASES else SINGLE_STREAM)
    assert found.difference < TOLERANCE

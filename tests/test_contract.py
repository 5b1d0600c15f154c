"""Packages written by `blvnet export` are served with the same results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_export.checkpoints.checkpoint import load_network
from model_export.networks.normalise import normalise
from service.clip.decoding.clips import decode_video
from service.engines.providers import EngineConfig
from service.models.engine_selection import ChosenBy, open_package
from service.offline import classify_files
from service.packages.manifest import read_manifest
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig
from tests.model_export.exported import SmallExport
from tests.support.clips import numbered_clip

BOUND = 1e-4  # of the largest logit: the contract's bound for fp32


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video with different frames."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(numbered_clip(frames=23))
    return path


def evidence_in_pytorch(small_export: SmallExport, clip: Path) -> NDArray[np.float32]:
    """Evidence `(T', C)` of the PyTorch network for the frames that the service decodes."""
    network, _, _ = load_network(small_export.checkpoint)
    decoded = decode_video(clip, read_manifest(small_export.folder).clip).inputs
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(frames)) for frames in decoded.values()))
    return np.asarray(evidence[0])


def test_service_compares_its_engines_on_the_exported_package(small_export: SmallExport) -> None:
    found = open_package(small_export.folder, read_manifest(small_export.folder), EngineConfig())
    assert found.chosen is ChosenBy.MEASURED
    assert {"cpu-f32", "openvino-f32"} <= found.measured_ms.keys()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_service_session_returns_the_logits_of_pytorch(
    small_export: SmallExport, clip: Path, batch: int, provider: str
) -> None:
    wanted = evidence_in_pytorch(small_export, clip)
    manifest = read_manifest(small_export.folder)
    decoded = decode_video(clip, manifest.clip).inputs
    session = open_package(small_export.folder, manifest, EngineConfig(provider)).session
    outputs = session.run({name: np.repeat(frames, batch, axis=0) for name, frames in decoded.items()})
    bound = BOUND * np.abs(wanted).max()
    for row in range(batch):
        assert np.abs(outputs.evidence[row] - wanted).max() < bound
        assert np.abs(outputs.logits[row] - wanted.mean(axis=0)).max() < bound


def test_recognizer_returns_the_probabilities_of_the_network(small_export: SmallExport, clip: Path) -> None:
    logits = evidence_in_pytorch(small_export, clip).mean(axis=0).astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ((_, answer),) = classify_files(CoreConfig(models=small_export.models), [clip], Query())
    assert isinstance(answer, Classification)
    assert [item.index for item in answer.predictions] == np.argsort(-probabilities).tolist()
    scores = [item.score for item in answer.predictions]
    np.testing.assert_allclose(scores, np.sort(probabilities)[::-1], rtol=1e-3)
    labels = read_manifest(small_export.folder).labels
    assert [item.label for item in answer.predictions] == [labels[item.index] for item in answer.predictions]

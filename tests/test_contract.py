"""Between the two halves of the project: what `blvnet export` writes, the service loads and answers with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_export.checkpoint import load_network
from model_export.networks.pixels import normalise
from service.clip.decode import decode_clip
from service.manifest import read_manifest
from service.offline import recognize_files
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognition import Query, Recognition
from service.runtime.choice import ChosenBy, open_package
from service.runtime.config import RuntimeConfig
from tests.clips import numbered_clip
from tests.model_export.exported import SmallExport

BOUND = 1e-4  # of the largest logit: the contract's bound for fp32


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip whose frames all differ."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(numbered_clip(frames=23))
    return path


def evidence_in_pytorch(small_export: SmallExport, clip: Path) -> NDArray[np.float32]:
    """(T', C), of the frames that the service would decode."""
    network, _, _ = load_network(small_export.checkpoint)
    decoded = decode_clip(clip, read_manifest(small_export.folder).clip).inputs
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(frames)) for frames in decoded.values()))
    return np.asarray(evidence[0])


def test_service_compares_its_engines_on_the_exported_package(small_export: SmallExport) -> None:
    found = open_package(small_export.folder, read_manifest(small_export.folder), RuntimeConfig())
    assert found.chosen is ChosenBy.MEASURED
    assert {"cpu-f32", "openvino-f32"} <= found.measured_ms.keys()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_service_session_gives_pytorchs_logits(
    small_export: SmallExport, clip: Path, batch: int, provider: str
) -> None:
    wanted = evidence_in_pytorch(small_export, clip)
    manifest = read_manifest(small_export.folder)
    decoded = decode_clip(clip, manifest.clip).inputs
    session = open_package(small_export.folder, manifest, RuntimeConfig(provider)).session
    outputs = session.run({name: np.repeat(frames, batch, axis=0) for name, frames in decoded.items()})
    bound = BOUND * np.abs(wanted).max()
    for row in range(batch):
        assert np.abs(outputs.evidence[row] - wanted).max() < bound
        assert np.abs(outputs.logits[row] - wanted.mean(axis=0)).max() < bound


def test_recognizer_answers_with_the_networks_probabilities(small_export: SmallExport, clip: Path) -> None:
    logits = evidence_in_pytorch(small_export, clip).mean(axis=0).astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ((_, answer),) = recognize_files(CoreConfig(models=small_export.models), [clip], Query())
    assert isinstance(answer, Recognition)
    assert [item.index for item in answer.predictions] == np.argsort(-probabilities).tolist()
    scores = [item.score for item in answer.predictions]
    np.testing.assert_allclose(scores, np.sort(probabilities)[::-1], rtol=1e-3)
    labels = read_manifest(small_export.folder).labels
    assert [item.label for item in answer.predictions] == [labels[item.index] for item in answer.predictions]

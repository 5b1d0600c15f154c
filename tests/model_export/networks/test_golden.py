"""The networks give the logits of the authors' implementations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_export.checkpoints.checkpoint import load_network
from model_export.networks.normalise import normalise
from tests.golden.cases import CASES, TOLERANCE, golden


@pytest.mark.parametrize("name", CASES)
def test_imported_checkpoint_gives_the_authors_logits(name: str, tmp_path: Path) -> None:
    case = golden(name)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in case.weights().items()}}, tmp_path / "x"
    )
    network, config, _ = load_network(tmp_path / "x", name)
    assert sum(parameter.numel() for parameter in network.parameters()) == case.parameters
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(stream)) for stream in case.streams()))
    assert evidence.shape == (1, config.moments, 174)
    assert case.difference(evidence.mean(1)[0].numpy()) < TOLERANCE

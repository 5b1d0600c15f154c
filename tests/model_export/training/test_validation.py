"""Loss and metric of the validation split."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.metrics import Metric
from model_export.networks.config import ModelConfig
from model_export.networks.registry import parse_architecture
from model_export.training.clips.batches import BatchLoader, SplitData
from model_export.training.config import Amp, TrainConfig
from model_export.training.processes import Processes
from model_export.training.validation import Validator
from tests.model_export.training.test_trainer import FRAMES, LABELS, SIZE, MadeClips, listing


class FixedEvidence(nn.Module):
    """Gives the same evidence (T', C) for every clip."""

    def __init__(self, evidence: Tensor) -> None:
        super().__init__()
        self.evidence = evidence

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.evidence.expand(len(inputs[0]), -1, -1)


def model() -> ModelConfig:
    return parse_architecture("blvnet-tam-mini", num_classes=len(LABELS), frames=FRAMES, size=SIZE)


def test_evidence_in_bfloat16_is_averaged_in_float32() -> None:
    # 1 + 1/256 is between two numbers of bfloat16, so that both labels would have equal scores.
    evidence = torch.tensor([[1.0, 1.0], [1.0078125, 1.0]], dtype=torch.bfloat16)
    loader = BatchLoader(SplitData(listing(), MadeClips()), workers=0)
    config = TrainConfig(batch_size=4, amp=Amp.BF16)
    validator = Validator(loader, Metric.TOP1, model().clip_spec(), config, Processes())
    loss, top1 = validator.measure(FixedEvidence(evidence), 1, lambda _: None)
    logits = torch.tensor([[1.00390625, 1.0]])
    expected = [F.cross_entropy(logits, torch.tensor([label])).item() for label in (0, 1)]
    assert loss == pytest.approx(sum(expected) / 2, abs=1e-7)
    assert top1 == 0.5  # half of the clips have each label

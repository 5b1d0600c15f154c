"""The arithmetic of a training step."""

from __future__ import annotations

import pytest
import torch

from model_export.training.config import Amp
from model_export.training.step import native_arithmetic


@pytest.mark.parametrize(
    ("abilities", "wanted"),
    [
        ({"avx2": True}, Amp.OFF),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, Amp.OFF),
        ({"avx512_bf16": True}, Amp.BF16),
        ({"avx512_bf16": False, "amx_bf16": True}, Amp.BF16),
        ({"neon": True, "bf16": True}, Amp.BF16),
    ],
)
def test_processors_without_instructions_for_bfloat16_train_in_float32(
    abilities: dict[str, bool], wanted: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert native_arithmetic(torch.device("cpu")) is wanted


@pytest.mark.parametrize(("supported", "wanted"), [(True, Amp.BF16), (False, Amp.FP16)])
def test_gpus_without_instructions_for_bfloat16_train_in_float16(
    supported: bool, wanted: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert native_arithmetic(torch.device("cuda")) is wanted

"""Numeric precisions of a package, and how far each may be from the PyTorch network."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Arithmetic of the graph's weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True)
class Bounds:
    """Largest differences from the PyTorch network in float32, relative to the output's largest magnitude.

    Attributes:
        logits: of logits; servers hold what they load to it too.
        evidence: of the evidence of single moments, which no average makes smoother.
    """

    logits: float
    evidence: float

    def __str__(self) -> str:
        if self.logits == self.evidence:
            return f"{self.logits:g}"
        return f"{self.logits:g} and {self.evidence:g}"


# fp32: both sides compute the same sums in another order, batch normalisation folded or not. That is a few
# 1e-6 for networks of 50 to 152 layers; a mistake in folding, padding or the order of frames is 1e-2 or more.
#
# fp16: 1e-3 in float16 and 7e-3 in bfloat16, which processors without float16 take instead, for the trained
# demo network; 4e-3 in bfloat16 for 50 layers.
#
# int8: 2 to 3 % for the same two networks, on clips like those calibrated with and on noise alike. It is the
# accuracy gate that says whether that matters.
BOUNDS = {
    Precision.FP32: Bounds(1e-4, 1e-4),
    Precision.FP16: Bounds(2e-2, 4e-2),
    Precision.INT8: Bounds(0.1, 0.2),
}

CALIBRATION_CLIPS = 64  # most clips to measure int8's ranges with
MAX_DROP = 0.5  # points of top-1 that int8 may lose
MIN_AGREEMENT = 98.0  # percent of clips that int8 must give the same label, where none says its class

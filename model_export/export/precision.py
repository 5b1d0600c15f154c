"""Numeric precisions of a package, and the differences from the PyTorch network that each may have."""

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
        logits: bound for the logits.
        probes: bound for the logits of the probe clips, which servers apply to the graphs that they load.
        moments: bound for the evidence and features of single moments, which are not averaged.
    """

    logits: float
    probes: float
    moments: float


@dataclass(frozen=True)
class AccuracyLimits:
    """Limits of a rounded graph.

    Attributes:
        max_drop: points of top-1 that it may lose.
        min_agreement: percentage of clips that must have the float graph's label.
    """

    max_drop: float = 0.5
    min_agreement: float = 98.0


# fp32: both sides compute the same sums in another order, with or without folded batch normalisation. The
# difference is a few 1e-6 for networks of 50 to 152 layers; a mistake in folding, padding or the order of
# frames makes 1e-2 or more.
#
# fp16: 1e-3 in float16, and 7e-3 in bfloat16, which processors without float16 use instead, for the trained
# demo network; 4e-3 in bfloat16 for 50 layers.
#
# int8: 2 to 4 % for the same two networks, on clips like those of the calibration. The accuracy gate decides
# whether that matters. The probe clips show nothing that a network knows, so their logits are small and the
# rounding is relatively large: for two versions of the demo network, onnxruntime and OpenVINO differ by 8 %
# from each other, and by 4 to 13 % from PyTorch.
BOUNDS = {
    Precision.FP32: Bounds(1e-4, 1e-4, 1e-4),
    Precision.FP16: Bounds(2e-2, 2e-2, 4e-2),
    Precision.INT8: Bounds(0.1, 0.2, 0.2),
}

CALIBRATION_CLIPS = 64  # at most, whose activations set the ranges of int8
LIMITS = AccuracyLimits()

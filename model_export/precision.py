"""Numeric precisions of a package, and how far each may be from the PyTorch network."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Arithmetic of the graph's weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


# Largest difference of an output from the PyTorch network in float32 on the same clips, relative to the
# largest magnitude of that output. A precision without a bound cannot be exported.
#
# fp32: both sides compute the same sums in another order, batch normalisation folded or not. That is a few
# 1e-6 for networks of 50 to 152 layers; a mistake in folding, padding or the order of frames is 1e-2 or more.
BOUNDS = {Precision.FP32: 1e-4}

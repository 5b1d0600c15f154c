"""Static int8 quantisation of an exported graph, by onnxruntime's quantiser.

Weights are signed, symmetric, scaled per channel and of 7 bits: from -64 to 64. Processors with AVX2 but
without VNNI add two products of an activation and a weight in 16 bits, which saturate with 8-bit weights (see
"When and why do I need to try U8U8?" in onnxruntime's page on quantization). There, the logits of a small
network were wrong by 14 % of the largest with 8-bit weights, and by 2 % with 7-bit weights. Activations are
unsigned, with one scale and zero point per tensor, from the smallest and largest value on the calibration
clips. Pairs of QuantizeLinear and DequantizeLinear mark in the graph where values are rounded; runtimes fuse
them with the operators between.

Two things differ from the quantiser's own result. The classifier stays in float32: it takes no time, and its
outputs would be rounded to 256 levels. And pixels, which are integers from 0 to 255, are not rounded again to
the range of the calibration: they enter with scale 1 and zero point 0, without a conversion to float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx_ir.passes import common as common_passes
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from model_export.export.calibration import Clip

CLASSIFIER = {"Gemm", "MatMul"}


def quantize(graph: onnx.ModelProto, clips: Iterable[Clip]) -> onnx.ModelProto:
    """`graph` in int8, with the ranges of its activations on `clips`."""
    with tempfile.TemporaryDirectory() as folder, quiet_quantizer():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            target,
            CalibrationBatches(clips),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=[node.name for node in graph.graph.node if node.op_type in CLASSIFIER],
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(target)
    _feed_pixels_unrounded(model)
    cleaned = ir.from_proto(model)
    common_passes.RemoveUnusedNodesPass()(cleaned)  # the ranges of the pixels
    common_passes.RemoveUnusedOpsetsPass()(cleaned)
    common_passes.ClearMetadataAndDocStringPass()(cleaned)
    cleaned.producer_name, cleaned.producer_version = graph.producer_name, None
    return ir.to_proto(cleaned)


class CalibrationBatches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Clips as batches of one, for the quantiser."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._clips = iter(clips)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch; None after the last."""
        clip = next(self._clips, None)
        return None if clip is None else {name: frames[None] for name, frames in clip.items()}


@contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Silence the quantiser's advice to preprocess the graph, which has been done."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def _feed_pixels_unrounded(model: onnx.ModelProto) -> None:
    """Feed pixels directly to their DequantizeLinear, with scale 1 and zero point 0.

    uint8 -> Cast -> QuantizeLinear -> DequantizeLinear becomes uint8 -> DequantizeLinear.
    """
    nodes = model.graph.node
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1.0, np.float32), "pixel.scale"),
            numpy_helper.from_array(np.array(0, np.uint8), "pixel.zero"),
        ]
    )
    casts = [
        node
        for node in nodes
        if node.op_type == "Cast"
        and any(item.name == "to" and item.i == TensorProto.FLOAT for item in node.attribute)
    ]
    for cast in casts:
        rounders = consumers[cast.output[0]]
        assert all(node.op_type == "QuantizeLinear" for node in rounders), "pixels are rounded first"
        for rounder in rounders:
            for reader in consumers[rounder.output[0]]:
                assert reader.op_type == "DequantizeLinear"
                reader.input[:] = [cast.input[0], "pixel.scale", "pixel.zero"]
            nodes.remove(rounder)
        nodes.remove(cast)

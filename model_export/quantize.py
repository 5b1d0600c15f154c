"""Static int8 quantisation of an exported graph, by onnxruntime's quantiser.

Weights are signed, symmetric and scaled per channel; activations are unsigned with one scale and zero point a
tensor, from the smallest and largest value that the calibration clips gave. Pairs of QuantizeLinear and
DequantizeLinear say in the graph where values are rounded; runtimes fuse them with what lies between.

Two things differ from what the quantiser does by itself. The classifier stays in float32: it takes no time,
and its outputs would be rounded to 256 levels. And pixels, which are integers from 0 to 255, are not rounded
again to what a calibration found of them: they enter with scale 1 and zero point 0, without a detour through
floats.
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

from model_export.calibration import Clip

CLASSIFIER = {"Gemm", "MatMul"}


def quantize(graph: onnx.ModelProto, clips: Iterable[Clip]) -> onnx.ModelProto:
    """`graph` in int8, its ranges measured on `clips`."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            target,
            _Batches(clips),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in graph.graph.node if node.op_type in CLASSIFIER],
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(target)
    _pixels_as_they_are(model)
    return _cleaned(model, graph)


def _cleaned(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Without what is left over of the pixels' ranges, and with the names of the graph that was quantised."""
    cleaned = ir.from_proto(model)
    common_passes.RemoveUnusedNodesPass()(cleaned)
    common_passes.RemoveUnusedOpsetsPass()(cleaned)
    common_passes.ClearMetadataAndDocStringPass()(cleaned)
    cleaned.producer_name, cleaned.producer_version = original.producer_name, None
    return ir.to_proto(cleaned)


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Clips one by one, as batches of one."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._clips = iter(clips)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch; None behind the last."""
        clip = next(self._clips, None)
        return None if clip is None else {name: frames[None] for name, frames in clip.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to preprocess the graph: what that would do is done."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def _pixels_as_they_are(model: onnx.ModelProto) -> None:
    """Feed pixels to their DequantizeLinear directly, with scale 1 and zero point 0.

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
    for cast in [node for node in nodes if node.op_type == "Cast" and _is_float(node)]:
        rounders = consumers[cast.output[0]]
        assert all(node.op_type == "QuantizeLinear" for node in rounders), "pixels are rounded first"
        for rounder in rounders:
            for reader in consumers[rounder.output[0]]:
                assert reader.op_type == "DequantizeLinear"
                reader.input[:] = [cast.input[0], "pixel.scale", "pixel.zero"]
            nodes.remove(rounder)
        nodes.remove(cast)


def _is_float(cast: onnx.NodeProto) -> bool:
    return any(item.name == "to" and item.i == TensorProto.FLOAT for item in cast.attribute)

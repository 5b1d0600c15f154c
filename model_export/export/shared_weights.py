"""Weights on disk that two graphs of a package share.

The variants of a network have the same weights, except a few, in tensors of different shapes. So the second
graph refers to the bytes in the first graph's file, as ONNX external data does: file, offset, length. For
bLVNet-TAM-50 in float32, the second file has 0.1 MB instead of 100.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

# Smaller tensors stay in their graph: shapes, scales and factors, which engines read while they load it.
LEAST_BYTES = 1024


def share_weights(model: onnx.ModelProto, primary: Path) -> None:
    """Make `model` read its weights from the graph file `primary` if they are the same.

    `model` has to be saved into the same folder.
    """
    content = primary.read_bytes()
    # Weights are searched for in the order in which they were written, as protobuf does not expose the
    # position of a field.
    offsets: dict[bytes, int] = {}
    position = 0
    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if len(tensor.raw_data) >= LEAST_BYTES:
            position = content.index(tensor.raw_data, position)
            offsets.setdefault(tensor.raw_data, position)
            position += len(tensor.raw_data)
    for tensor in model.graph.initializer:
        offset = offsets.get(tensor.raw_data)
        if offset is None:
            continue
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", primary.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

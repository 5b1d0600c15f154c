"""Two graphs of one package share their weights on disk.

The forms of a network hold the same weights, a few aside, in tensors of other shapes. So the second graph's
refer to the bytes inside the first one's file, as ONNX external data does: file, offset, length. For
bLVNet-TAM-50 in float32 the second file has 0.1 MB instead of 100.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

# What is smaller stays where it is: shapes, scales, factors, which engines read while they build the graph.
LEAST_BYTES = 1024


def share_weights(model: onnx.ModelProto, primary: Path) -> None:
    """Let the weights of `model` that are in the graph file `primary` too be read from there.

    `model` has to be saved into the same folder.
    """
    places = _places(primary)
    for tensor in model.graph.initializer:
        offset = places.get(tensor.raw_data) if len(tensor.raw_data) >= LEAST_BYTES else None
        if offset is None:
            continue
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", primary.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)


def _places(path: Path) -> dict[bytes, int]:
    """The bytes of each large weight in a graph file -> where in the file they are.

    Searched for, in the order in which they were written, as protobuf does not tell where it puts a field.
    """
    content = path.read_bytes()
    places: dict[bytes, int] = {}
    position = 0
    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if len(tensor.raw_data) >= LEAST_BYTES:
            position = content.index(tensor.raw_data, position)
            places.setdefault(tensor.raw_data, position)
            position += len(tensor.raw_data)
    return places

"""An exported float32 graph in float16: weights, activations and pixels; evidence and logits stay float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_export.graph import EVIDENCE

HALF_EVIDENCE = f"{EVIDENCE}.half"


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float16.

    The average over moments is taken in float32, behind the last conversion. Factors of a Resize are
    parameters, not data, and keep their type.
    """
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    factors = {node.input[2] for node in half.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in factors:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in half.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    _widen_evidence(half.graph)
    del half.graph.value_info[:]  # types of tensors in between, which are others now
    return half


def _widen_evidence(graph: onnx.GraphProto) -> None:
    """Convert the evidence to float32 where it is made; the logits are computed from that."""
    nodes = list(graph.node)
    (place,) = (index for index, node in enumerate(nodes) if EVIDENCE in node.output)
    nodes[place].output[:] = [HALF_EVIDENCE]
    widening = helper.make_node("Cast", [HALF_EVIDENCE], [EVIDENCE], "widen_evidence", to=TensorProto.FLOAT)
    del graph.node[:]
    graph.node.extend([*nodes[: place + 1], widening, *nodes[place + 1 :]])

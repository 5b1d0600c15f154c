"""An exported float32 graph in float16: weights, activations and pixels. The outputs stay float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.packages.manifest import EVIDENCE, FEATURES


def to_float16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float16.

    Features and evidence are converted to float32 where they are computed, and the logits are the mean of
    the converted evidence. The factors of a Resize are parameters, not data, and keep their type.
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
    nodes = []
    for node in half.graph.node:
        nodes.append(node)
        for index, output in enumerate(node.output):
            if output in (EVIDENCE, FEATURES):
                node.output[index] = f"{output}.half"
                nodes.append(
                    helper.make_node(
                        "Cast", [f"{output}.half"], [output], f"widen_{output}", to=TensorProto.FLOAT
                    )
                )
        # The classifier reads the features in float16; the logits read the evidence in float32.
        for index, name in enumerate(node.input):
            if name == FEATURES:
                node.input[index] = f"{FEATURES}.half"
    # `nodes` refers to messages in the graph, so they are copied before the graph's own are deleted.
    copies = []
    for node in nodes:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copies.append(copied)
    del half.graph.node[:]
    half.graph.node.extend(copies)
    del half.graph.value_info[:]  # the types of intermediate tensors, which have changed
    return half

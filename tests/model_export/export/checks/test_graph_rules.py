"""Graphs that break a rule for the graphs of a package."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from model_export.export.checks.graph_rules import GraphError, check_graph
from model_export.export.onnx_graph import OPSET
from service.clip.spec import ClipSpec, Frames, InputSpec

CLIP = ClipSpec(frames=2, inputs=(InputSpec("frames", Frames.ALL, 4, 4),))


def graph_of(*extra: onnx.NodeProto, **changes: Any) -> onnx.ModelProto:
    """A valid graph for `CLIP`: the mean colour of each frame, and `extra` nodes."""
    shape = changes.get("shape", ["N", 2, 4, 4, 3])
    inputs = [helper.make_tensor_value_info("frames", changes.get("dtype", TensorProto.UINT8), shape)]
    outputs = [
        helper.make_tensor_value_info(changes.get("logits", "logits"), TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", 2, 3]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", changes.get("moments", 2), 3]),
    ]
    body = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "space"], ["features"], keepdims=0),
        helper.make_node("Identity", ["features"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence", "time"], [outputs[0].name], keepdims=0),
    ]
    constants = [
        helper.make_tensor("space", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("time", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph([*body, *extra], "graph", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", changes.get("opset", OPSET))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_valid_graph_passes() -> None:
    check_graph(graph_of(), CLIP)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        pytest.param(graph_of(helper.make_node("Shape", ["float"], ["x"])), "uses Shape", id="operator"),
        pytest.param(graph_of(helper.make_node("Relu", ["gone"], ["x"])), "not valid ONNX", id="invalid"),
        pytest.param(
            graph_of(helper.make_node("Transpose", ["evidence"], ["x"], perm=[1, 0, 2])),
            "x has a shape that is not constant",
            id="free axis",
        ),
        pytest.param(graph_of(opset=19), "operator set 18 alone", id="opset"),
        pytest.param(graph_of(shape=[1, 2, 4, 4, 3]), "inputs are not those", id="fixed batch"),
        pytest.param(graph_of(shape=["N", 2, 4, 5, 3]), "inputs are not those", id="size"),
        pytest.param(graph_of(dtype=TensorProto.INT8), "inputs are not those", id="type"),
        pytest.param(graph_of(logits="scores"), "outputs are not", id="name of an output"),
        pytest.param(graph_of(moments=3), "not valid ONNX|outputs are not", id="shape of the features"),
    ],
)
def test_graph_that_breaks_a_rule_is_refused(model: onnx.ModelProto, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        check_graph(model, CLIP)

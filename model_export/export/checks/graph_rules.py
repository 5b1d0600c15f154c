"""The rules for the graphs of a package, which engines and the service rely on."""

from __future__ import annotations

import onnx

from model_export.export.onnx_graph import BATCH, OPSET, OUTPUTS
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

# Operators of shapes computed at run time, of control flow, and of training; `check_graph` refuses them.
FORBIDDEN = frozenset(
    {"BatchNormalization", "Compress", "ConstantOfShape", "Expand", "Gather", "GatherElements", "GatherND"}
    | {"If", "Loop", "NonZero", "Range", "Scan", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size"}
    | {"Unique", "Where"}
)


class GraphError(BlvnetError):
    """A graph that breaks a rule for the graphs of a package."""


def check_graph(model: onnx.ModelProto, clip: ClipSpec) -> None:
    """Check the rules for a package's graph.

    It must be valid ONNX of operator set `OPSET` and no other domain, without `FORBIDDEN` operators, with
    `clip`'s inputs in uint8 and three float32 outputs, and no axis but the first may have a variable length.

    Raises:
        GraphError: a rule does not hold; the message says which.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise GraphError(f"the graph is not valid ONNX: {str(exc).splitlines()[0]}") from exc
    if [(entry.domain, entry.version) for entry in model.opset_import] != [("", OPSET)]:
        raise GraphError(f"the graph must use ONNX operator set {OPSET} alone")
    if wrong := sorted({node.op_type for node in model.graph.node} & FORBIDDEN):
        raise GraphError(f"the graph uses {', '.join(wrong)}")
    uint8, float32 = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    expected = [(spec.name, uint8, list(spec.shape(clip.frames))) for spec in clip.inputs]
    if [_signature(value) for value in inferred.graph.input] != expected:
        raise GraphError("the graph's inputs are not those of the clip")
    match [_signature(value) for value in inferred.graph.output]:
        case [
            (str(logits), kind, [int(classes)]),
            (str(evidence), evidence_kind, [int(moments), int(evidence_classes)]),
            (str(features), features_kind, [int(feature_moments), int()]),
        ]:
            valid = (
                (logits, evidence, features) == OUTPUTS
                and kind == evidence_kind == features_kind == float32
                and classes == evidence_classes
                and moments == feature_moments
            )
        case _:
            valid = False
    if not valid:
        raise GraphError(
            "the graph's outputs are not logits (N, C), evidence (N, T', C) and features (N, T', F)"
        )
    for value in inferred.graph.value_info:
        if any(not dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]):
            raise GraphError(f"{value.name} has a shape that is not constant")


def _signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[int]]:
    """Name, element type and shape without the batch axis; -1 in front where that axis is not `BATCH`."""
    batch, *rest = value.type.tensor_type.shape.dim
    marker = [] if batch.dim_param == BATCH else [-1]
    return value.name, value.type.tensor_type.elem_type, marker + [dim.dim_value for dim in rest]

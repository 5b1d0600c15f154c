"""The network as an ONNX graph, and the rules for the graphs of a package.

`torch.onnx.export` writes the graph from one of the network's variants (`rewrites.variants`). Tracing takes
1.7 times as long with a batch of variable length, so the graph is traced with `EXAMPLES` clips, and the
length is made variable afterwards. Two more things are left to do: sizes that are computed at run time
although they are constant, and metadata about the source of each node.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common as common_passes
from torch import Tensor, nn

from model_export.export.rewrites.variants import GraphVariant, serving_network
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from service.errors import BlvnetError
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS

OPSET = 18  # the exporter's default, so nothing is converted
OUTPUTS = (LOGITS, EVIDENCE, FEATURES)
BATCH = "N"
EXAMPLES = 7

# Operators of shapes computed at run time, of control flow, and of training; check_graph refuses them.
FORBIDDEN = frozenset(
    {"BatchNormalization", "Compress", "ConstantOfShape", "Expand", "Gather", "GatherElements", "GatherND"}
    | {"If", "Loop", "NonZero", "Range", "Scan", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size"}
    | {"Unique", "Where"}
)


class GraphError(BlvnetError):
    """A graph that breaks a rule for the graphs of a package."""


class ServingGraph(nn.Module):
    """uint8 inputs (N, T_b, S, S, 3) -> logits (N, C), evidence (N, T', C) and features (N, T', F)."""

    def __init__(self, network: VideoClassifier, variant: GraphVariant) -> None:
        super().__init__()
        self.network = serving_network(network, variant)
        self.fc = copy.deepcopy(network.fc)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        features = self.network(*inputs)
        # On a matrix, so that the classifier is one Gemm in every variant and they share its weights.
        evidence = self.fc(features.flatten(0, 1)).unflatten(0, (-1, features.shape[1]))
        return evidence.mean(dim=1), evidence, features


def build_graph(network: VideoClassifier, clip: ClipSpec, variant: GraphVariant) -> onnx.ModelProto:
    """The float32 graph of `network`, on `clip`'s inputs as decoding gives them; see also `check_graph`."""
    examples = tuple(
        torch.zeros(EXAMPLES, *spec.shape(clip.frames), dtype=torch.uint8) for spec in clip.inputs
    )
    with quiet_exporter():
        program = torch.onnx.export(
            ServingGraph(network, variant).eval().requires_grad_(False),
            examples,
            input_names=[spec.name for spec in clip.inputs],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    _make_resizes_constant(model)
    _make_batch_variable(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    common_passes.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "blvnet-serve", None
    return ir.to_proto(model)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on optional packages and on axes that share a name."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _make_batch_variable(model: ir.Model) -> None:
    """Let the batch have any length; it is part of the first axis of all tensors.

    Only Reshape names the length of that axis. If anything else depended on it, the rules of `check_graph` or
    the comparison with PyTorch in batches of other lengths would fail.
    """
    ends = [(value, value.shape) for value in (*model.graph.inputs, *model.graph.outputs)]
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Reshape":
            assert node.inputs[1] is not None
            target = ir.convenience.get_const_tensor(node.inputs[1])
            assert target is not None
            first, *others = target.numpy().tolist()
            assert first == -1 or first % EXAMPLES == 0, "the first axis contains the batch"
            sizes = np.array([-1, *others], np.int64)
            node.replace_input_with(1, _add_initializer(model.graph, f"{node.outputs[0].name}.sizes", sizes))
        for value in node.outputs:
            value.shape = None
    for value, shape in ends:
        assert shape is not None
        value.shape = ir.Shape((BATCH, *shape[1:]))


def _make_resizes_constant(model: ir.Model) -> None:
    """Resize by constant factors, where the exporter computes the result's shape at run time."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Resize":
            continue
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        sides = zip(_sides(source), _sides(result), strict=True)
        factors = np.array([1.0, 1.0, *(large / small for small, large in sides)], np.float32)
        constant = _add_initializer(model.graph, f"{result.name}.scales", factors)
        inputs = [source, None, constant]
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)


def _add_initializer(graph: ir.Graph, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> ir.Value:
    """Add a constant to the graph."""
    tensor = ir.tensor(values, name=name)
    shape, kind = ir.Shape(values.shape), ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def _sides(value: ir.Value) -> tuple[int, ...]:
    """Height and width, after the time axis if there is one."""
    assert value.shape is not None
    sides = tuple(side for side in value.shape[2:] if isinstance(side, int))
    assert len(sides) == len(value.shape) - 2
    return sides


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

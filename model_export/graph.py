"""The network as an ONNX graph, and what that graph must be.

`torch.onnx.export` writes it from the network's serving form (`serving`). What its own optimiser leaves is
finished here: sizes computed at run time that are constants, and notes on where in the source each node came
from.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as common_passes
from torch import Tensor, nn

from model_export.serving.form import Form, for_serving
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

# The exporter's own operator set, so nothing is converted, and nothing here needs a newer one.
OPSET = 18
LOGITS, EVIDENCE = OUTPUTS = ("logits", "evidence")
BATCH = "N"

# Operators of shapes computed at run time, of control flow, and of training; check_graph refuses them.
FORBIDDEN = frozenset(
    {"BatchNormalization", "Compress", "ConstantOfShape", "Expand", "Gather", "GatherElements", "GatherND"}
    | {"If", "Loop", "NonZero", "Range", "Scan", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size"}
    | {"Unique", "Where"}
)


class GraphError(BlvnetError):
    """A graph that is not what a package promises."""


class ServingGraph(nn.Module):
    """uint8 inputs (N, T_b, S, S, 3) -> logits (N, C) and evidence (N, T', C)."""

    def __init__(self, network: nn.Module, form: Form) -> None:
        super().__init__()
        self.network = for_serving(network, form)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        evidence = self.network(*inputs)
        return evidence.mean(dim=1), evidence


def build_graph(network: nn.Module, clip: ClipSpec, form: Form = Form.BLOCKED) -> onnx.ModelProto:
    """The graph of `network` (normalised streams -> evidence), with `clip`'s inputs as they come decoded.

    Raises:
        GraphError: the graph is not valid ONNX, or breaks one of the rules of `check_graph`.
    """
    model = _exported(ServingGraph(network, form).eval().requires_grad_(False), clip)
    _constant_resizes(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    common_passes.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "blvnet-serve", None
    proto = ir.to_proto(model)
    check_graph(proto, clip)
    return proto


def _exported(graph: nn.Module, clip: ClipSpec) -> ir.Model:
    batch = torch.export.Dim(BATCH)
    examples = tuple(torch.zeros(2, *spec.shape(clip.frames), dtype=torch.uint8) for spec in clip.inputs)
    with quiet_exporter():
        program = torch.onnx.export(
            graph,
            examples,
            input_names=[spec.name for spec in clip.inputs],
            output_names=list(OUTPUTS),
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on packages that it could use and on axes that share a name."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _constant_resizes(model: ir.Model) -> None:
    """Resize by constant factors where they are whole, which runtimes are fast at, else to constant sizes.

    The exporter computes the output's shape from the input's at run time.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Resize":
            continue
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        small, large = _sides(source), _sides(result)
        if all(after % before == 0 for before, after in zip(small, large, strict=True)):
            factors = [1.0, 1.0, *(after / before for before, after in zip(small, large, strict=True))]
            inputs = [source, None, _constant(model, f"{result.name}.scales", np.array(factors, np.float32))]
        else:
            node.attributes["axes"] = ir.AttrInt64s("axes", list(range(2, 2 + len(large))))
            inputs = [source, None, None, _constant(model, f"{result.name}.sizes", np.array(large, np.int64))]
        _replace_inputs(node, inputs)


def _sides(value: ir.Value) -> tuple[int, ...]:
    """The axes behind batch and channels: height and width, with time in front in a volume."""
    assert value.shape is not None
    sides = tuple(side for side in value.shape[2:] if isinstance(side, int))
    assert len(sides) == len(value.shape) - 2
    return sides


def _constant(
    model: ir.Model, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def _replace_inputs(node: ir.Node, inputs: list[ir.Value | None]) -> None:
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def check_graph(model: onnx.ModelProto, clip: ClipSpec) -> None:
    """Check what a package promises of its graph.

    Valid ONNX of operator set `OPSET` and no other domain, none of the `FORBIDDEN` operators, `clip`'s inputs
    in uint8, the two outputs in float32, and no axis but the first of unknown length anywhere.

    Raises:
        GraphError: one of these does not hold; the message says which.
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
    _check_ends(inferred, clip)
    for value in inferred.graph.value_info:
        if any(not dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]):
            raise GraphError(f"{value.name} has a shape that is not constant")


def _check_ends(model: onnx.ModelProto, clip: ClipSpec) -> None:
    """Inputs and outputs, by name, element type and shape."""
    wanted = [(spec.name, onnx.TensorProto.UINT8, list(spec.shape(clip.frames))) for spec in clip.inputs]
    if [_end(value) for value in model.graph.input] != wanted:
        raise GraphError("the graph's inputs are not those of the clip")
    logits, evidence = (_end(value) for value in model.graph.output)
    if (
        (logits[0], evidence[0]) != OUTPUTS
        or logits[1] != onnx.TensorProto.FLOAT
        or evidence[1] != onnx.TensorProto.FLOAT
        or len(evidence[2]) != 2
        or logits[2] != evidence[2][1:]
    ):
        raise GraphError("the graph's outputs are not logits (N, C) and evidence (N, T', C)")


def _end(value: onnx.ValueInfoProto) -> tuple[str, int, list[int]]:
    """Name, element type and shape less the batch axis; -1 in front where that axis is not `BATCH`."""
    batch, *rest = value.type.tensor_type.shape.dim
    marker = [] if batch.dim_param == BATCH else [-1]
    return value.name, value.type.tensor_type.elem_type, marker + [dim.dim_value for dim in rest]

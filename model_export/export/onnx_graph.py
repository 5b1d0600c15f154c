"""The network as an ONNX graph.

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
from onnxscript import optimizer
from torch import Tensor, nn

from model_export.export.rewrites.variants import GraphVariant, serving_network
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS

OPSET = 18  # the exporter's default, so nothing is converted
OUTPUTS = (LOGITS, EVIDENCE, FEATURES)
BATCH = "N"
EXAMPLES = 7


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
    """The float32 graph of `network`, on `clip`'s inputs as decoding gives them.

    `checks.graph_rules` checks the result.
    """
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
            optimize=False,
        )
    assert program is not None
    model = program.model
    # What `optimize=True` does, without its second iteration, which changes nothing in these graphs.
    optimizer.optimize(model, num_iterations=1)
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

    Only Reshape names the length of that axis. If anything else depended on it, `checks.graph_rules` or
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

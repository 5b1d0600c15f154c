"""Operators, shapes and results of exported graphs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model_export.export.checks.graph_rules import FORBIDDEN
from model_export.export.onnx_graph import OUTPUTS, build_graph
from model_export.export.rewrites.variants import GraphVariant
from model_export.networks.config import ModelConfig
from model_export.networks.normalise import normalise
from model_export.networks.registry import build, parse_architecture
from model_export.networks.residual import VideoClassifier
from tests.model_export.export.networks_for_export import CLASSES, noise_clips, small_network


@dataclass(frozen=True)
class Exported:
    """A network, and its graph in one variant."""

    name: str
    variant: GraphVariant
    network: VideoClassifier
    config: ModelConfig
    model: onnx.ModelProto


# Depthwise convolutions over time. In the stem of the blocked variant, one for each tap of each frame that
# does not reach beyond the ends: 14 for 4 frames and 5 taps, 7 for 3 and 3. Elsewhere one for each TAM, two
# before a split.
DEPTHWISE = {
    "blvnet-tam-mini-f3x2": (2 * 7 + 3 * 2 + 2, 2 + 3 * 2 + 2),
    "blvnet-tam-mini-f2x2-blend5-shared": (14 + 3 * 2 + 2, 2 + 3 * 2 + 2),
    "blvnet-50-f2x2": (0, 0),
    "tsm-resnet-18-f3": (8, 8),
    "tam-i3d-resnet-18-f3": (8, 8),
}
# 72 pixels give maps of odd sides.
SIZES = {"blvnet-tam-mini-f3x2": 72}
# Each graph takes seconds to write; rewrites/test_variants.py covers more networks in torch alone.
VARIANTS = {"blvnet-50-f2x2": [GraphVariant.BLOCKED], "tam-i3d-resnet-18-f3": [GraphVariant.BLOCKED]}
CASES = [(name, variant) for name in DEPTHWISE for variant in VARIANTS.get(name, GraphVariant)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def exported(request: pytest.FixtureRequest) -> Exported:
    name, variant = request.param
    network, config = small_network(name, SIZES.get(name, 64))
    return Exported(name, variant, network, config, build_graph(network, config.clip_spec(), variant))


def groups(node: onnx.NodeProto) -> int:
    return next((item.i for item in node.attribute if item.name == "group"), 1)


def test_every_temporal_module_is_a_depthwise_convolution(exported: Exported) -> None:
    weights = {tensor.name: tuple(tensor.dims) for tensor in exported.model.graph.initializer}
    convolutions = [node for node in exported.model.graph.node if node.op_type == "Conv"]
    kernels = [
        weights[node.input[1]] for node in convolutions if groups(node) > 1
    ]  # constant weights are initializers
    temporal = [kernel for kernel in kernels if kernel[3:] in ((1,), (1, 1))]
    assert len(temporal) == DEPTHWISE[exported.name][exported.variant is not GraphVariant.BLOCKED]
    assert all(kernel[1] == 1 and 1 <= kernel[2] <= exported.config.taps for kernel in temporal)
    pooling = [kernel for kernel in kernels if kernel not in temporal]
    assert not pooling or exported.variant is GraphVariant.CHANNELS_LAST  # see AveragePoolConvolution


def test_no_operator_depends_on_shapes_or_data_at_run_time(exported: Exported) -> None:
    operators = Counter(node.op_type for node in exported.model.graph.node)
    assert not FORBIDDEN & set(operators)
    assert set(operators) <= {"Add", "AveragePool", "Cast", "Concat", "Conv", "Gemm", "MatMul", "MaxPool"} | {
        *("Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Slice", "Sub", "Transpose", "Unsqueeze")
    }


def test_only_the_batch_axis_is_variable(exported: Exported) -> None:
    config, model = exported.config, exported.model
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    wanted: dict[str, list[str | int]] = {
        item.name: ["N", *item.shape(config.frames)] for item in config.clip_spec().inputs
    }
    assert shapes == wanted | {
        "logits": ["N", CLASSES],
        "evidence": ["N", config.moments, CLASSES],
        "features": ["N", config.moments, exported.network.fc.in_features],
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_agrees_with_pytorch(exported: Exported, batch: int) -> None:
    clips = noise_clips(exported.config.clip_spec(), batch, seed=batch)
    with torch.inference_mode():
        inputs = [normalise(frames) for frames in clips]
        wanted = exported.network(*inputs).numpy()
        wanted_features = exported.network.features(*inputs).numpy()
    session = onnxruntime.InferenceSession(exported.model.SerializeToString())
    feed = {item.name: frames.numpy() for item, frames in zip(session.get_inputs(), clips, strict=True)}
    logits, evidence, features = session.run(list(OUTPUTS), feed)
    spread = np.ptp(wanted, axis=(0, 1)).max()  # how much the evidence differs between clips and moments
    assert np.abs(evidence - wanted).max() < 1e-4 * spread
    assert np.abs(logits - wanted.mean(axis=1)).max() < 1e-4 * spread
    assert np.abs(features - wanted_features).max() < 1e-5 * np.abs(wanted_features).max()


def test_graph_has_no_trace_of_the_exporting_machine(exported: Exported) -> None:
    assert not any(node.metadata_props or node.doc_string for node in exported.model.graph.node)
    described = onnx.ModelProto()
    described.CopyFrom(exported.model)
    described.graph.ClearField("initializer")
    assert b".py" not in described.SerializeToString()


@pytest.mark.parametrize("threads", [1, 2])
def test_network_is_exported_with_any_number_of_threads(threads: int) -> None:
    """The memory layout of results depends on the number of threads, at sizes of real networks."""
    config = parse_architecture("blvnet-tam-mini", num_classes=3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        graph = build_graph(build(config).eval(), config.clip_spec(), GraphVariant.CHANNELS_LAST)
    finally:
        torch.set_num_threads(before)
    assert "Identity" not in {node.op_type for node in graph.graph.node}

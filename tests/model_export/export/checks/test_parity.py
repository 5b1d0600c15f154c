"""The parity check finds graphs that are wrong in different ways. The network is a frame's mean colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model_export.export.calibration import synthetic_clips
from model_export.export.checks.parity import CLIPS, Parity, ParityError, check_parity
from model_export.export.precision import Precision
from model_export.networks.normalise import MEAN, STD
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec, Frames, InputSpec

CLIP = ClipSpec(frames=2, inputs=(InputSpec("frames", Frames.ALL, 32, 32),))
Node = onnx.NodeProto


class MeanColour(VideoClassifier):
    """Normalised frames (N, T, 3, H, W) -> features (N, T, 3), which are the evidence."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        nn.init.eye_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def features(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean(dim=(3, 4))


FEATURES = helper.make_node("Identity", ["colour"], ["features"])
RIGHT = [helper.make_node("Identity", ["colour"], ["evidence"])]
OTHER_FEATURES = [*RIGHT, helper.make_node("Mul", ["colour", "nearly"], ["features"])]
MIXES_CLIPS = [
    helper.make_node("ReduceMean", ["colour", "batch"], ["mixed"], keepdims=1),
    helper.make_node("Sub", ["colour", "mixed"], ["apart"]),
    helper.make_node("Add", ["colour", "apart"], ["evidence"]),
]
SLIGHTLY_OFF = [helper.make_node("Mul", ["colour", "nearly"], ["evidence"])]
SWAPS_FRAMES = [helper.make_node("Gather", ["colour", "swapped"], ["evidence"], axis=1)]
NO_NUMBER = [helper.make_node("Sqrt", ["colour"], ["evidence"])]


def write_graph(folder: Path, nodes: list[Node]) -> Path:
    """Write a graph that computes the network's `colour`, and `evidence` from it by `nodes`."""
    shape: list[str | int | None] = ["N", *CLIP.inputs[0].shape(CLIP.frames)]
    deviation = 255.0 * np.array(STD, np.float32)
    constants = {
        "space": np.array([2, 3]),
        "time": np.array([1]),
        "batch": np.array([0]),
        "swapped": np.array([1, 0]),
        "nearly": np.array(1.001, np.float32),
        "mean": 255.0 * np.array(MEAN, np.float32),
        "deviation": deviation,
    }
    body = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "space"], ["average"], keepdims=0),
        helper.make_node("Sub", ["average", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["colour"]),
        *nodes,
        *([] if nodes is OTHER_FEATURES else [FEATURES]),
        helper.make_node("ReduceMean", ["evidence", "time"], ["logits"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", 2, 3]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2, 3]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(body, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def measured(graph: Path) -> Parity:
    clips = synthetic_clips(CLIP, CLIPS)
    return check_parity(MeanColour(), [graph], CLIP, clips, "made clips", Precision.FP32)[graph.name]


def test_right_graph_passes(tmp_path: Path) -> None:
    parity = measured(write_graph(tmp_path, RIGHT))
    assert parity.holds
    assert parity.top1 == CLIPS
    assert max(parity.logits, parity.evidence, parity.features) < 1e-6


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        pytest.param(MIXES_CLIPS, "logits by ", id="clips of a batch meet"),
        pytest.param(
            SLIGHTLY_OFF,
            r"logits by 0\.001, evidence by 0\.001, features by .*e-0[6-9]; fp32 allows 0\.0001",
            id="off",
        ),
        pytest.param(
            SWAPS_FRAMES, r"logits by \d.*e-0[6-9], evidence by 0\.", id="right logits, wrong moments"
        ),
        pytest.param(OTHER_FEATURES, r"logits by .*e-0[6-9], .*, features by 0\.001;", id="other features"),
        pytest.param(NO_NUMBER, "logits by nan", id="no numbers"),
    ],
)
def test_wrong_graph_is_refused(nodes: list[Node], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=complaint):
        measured(write_graph(tmp_path, nodes))


def test_synthetic_clips_differ_and_use_the_whole_range() -> None:
    two_sizes = ClipSpec(
        frames=4, inputs=(InputSpec("little", Frames.EVEN, 64, 64), InputSpec("big", Frames.ODD, 32, 32))
    )
    clips = synthetic_clips(two_sizes, 3)
    assert [clip["little"].shape for clip in clips] == [(2, 64, 64, 3)] * 3
    assert clips[0]["big"].shape == (2, 32, 32, 3)
    assert all(frames.dtype == np.uint8 for frames in clips[0].values())
    assert (clips[0]["little"].min(), clips[0]["little"].max()) == (0, 255)
    assert (clips[0]["little"] != clips[1]["little"]).mean() > 0.9
    assert (clips[0]["little"][0] != clips[0]["little"][1]).mean() > 0.5

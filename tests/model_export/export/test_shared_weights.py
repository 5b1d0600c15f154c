"""A second graph reads its weights from the first one's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from model_export.export.shared_weights import share_weights

WEIGHT = np.arange(4 * 100, dtype=np.float32).reshape(4, 100)


def graph_with(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> onnx.ModelProto:
    """y = flatten(weight) + x."""
    initializers = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([-1]), "flat"),
    ]
    nodes = [
        helper.make_node("Reshape", ["weight", "flat"], ["row"]),
        helper.make_node("Add", ["row", "x"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [weight.size]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def saved(folder: Path, second: onnx.ModelProto) -> Path:
    (folder / "model.onnx").write_bytes(graph_with(WEIGHT).SerializeToString())
    share_weights(second, folder / "model.onnx")
    (folder / "second.onnx").write_bytes(second.SerializeToString())
    return folder / "second.onnx"


def test_weight_of_another_shape_is_not_stored_again(tmp_path: Path) -> None:
    path = saved(tmp_path, graph_with(WEIGHT.reshape(100, 4)))
    assert path.stat().st_size < 500 < WEIGHT.nbytes


def test_both_engines_read_it_from_the_first_file(tmp_path: Path) -> None:
    path = saved(tmp_path, graph_with(WEIGHT.reshape(2, 200)))
    x = np.ones(WEIGHT.size, np.float32)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_array_equal(found, WEIGHT.ravel() + 1)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(compiled({"x": x})["y"], WEIGHT.ravel() + 1)


def test_different_weight_stays_in_the_second_file(tmp_path: Path) -> None:
    path = saved(tmp_path, graph_with(WEIGHT + 1))
    (tmp_path / "model.onnx").unlink()
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": np.zeros(WEIGHT.size, np.float32)})
    np.testing.assert_array_equal(found, WEIGHT.ravel() + 1)

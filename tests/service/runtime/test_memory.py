"""Memory comes back after large batches, and not while they may come again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.manifest import GRAPH_FILE
from service.runtime import memory
from service.runtime.memory import KEPT_S, Growth
from service.runtime.providers import open_session
from tests.tiny_models import ONE_STREAM, TinyModel, graph

MB = 1e6


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_memory_is_over_when_a_small_batch_comes_long_after_the_last_large_one() -> None:
    growth = Growth(clock := Clock())
    assert not growth.over(8)
    clock.now_s += KEPT_S - 1
    assert not growth.over(1)
    assert not growth.over(8)
    clock.now_s += KEPT_S - 1
    assert not growth.over(1)
    clock.now_s += 1
    assert growth.over(1)
    clock.now_s += KEPT_S
    assert not growth.over(1)


def test_batches_that_grow_are_never_over() -> None:
    growth = Growth(clock := Clock())
    for rows in (1, 2, 2, 4):
        clock.now_s += 10 * KEPT_S
        assert not growth.over(rows)


def wide_graph() -> onnx.ModelProto:
    """The colour meter, that besides makes a tensor of 32 MB for each clip and adds a zero made of it."""
    network = graph(TinyModel(ONE_STREAM))
    nodes = [
        helper.make_node("Cast", ["frames"], ["wide_in"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["wide_in", "times"], ["wide"]),
        helper.make_node("Sin", ["wide"], ["wider"]),
        helper.make_node("ReduceMax", ["wider"], ["most"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "last"], ["column"]),
        helper.make_node("Mul", ["column", "none"], ["nothing"]),
    ]
    del network.graph.initializer[1:]
    for name, value in (
        ("times", np.array([1, 1, 18, 18, 1])),
        ("last", np.array([2])),
        ("none", np.array(0, np.float32)),
    ):
        network.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node in reversed(nodes):
        network.graph.node.insert(0, node)
    return network


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_memory_of_a_large_batch_is_given_back(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(wide_graph(), tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, provider, 1)
    clips = {"frames": np.zeros((8, *ONE_STREAM.inputs[0].shape(ONE_STREAM.frames)), np.uint8)}
    one = {"frames": clips["frames"][:1]}
    session.run(clips)
    large = resident_bytes()
    session.run(one)
    assert large - resident_bytes() < 50 * MB  # large ones may come again
    monkeypatch.setattr(memory, "KEPT_S", 0.0)
    session.run(one)
    assert large - resident_bytes() > 100 * MB

"""Memory of large batches is returned once no more of them arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engines import memory
from service.engines.memory import KEEP_S, ShrinkPolicy
from service.engines.providers import open_session
from service.packages.manifest import GRAPH_FILE
from tests.support.clock import Clock
from tests.support.tiny_models import ONE_STREAM, TinyModel, graph

MB = 1e6


def test_shrinks_for_a_small_batch_long_after_the_last_large_one() -> None:
    policy = ShrinkPolicy(clock := Clock())
    assert not policy.should_shrink(8)
    clock.now_s += KEEP_S - 1
    assert not policy.should_shrink(1)
    assert not policy.should_shrink(8)
    clock.now_s += KEEP_S - 1
    assert not policy.should_shrink(1)
    clock.now_s += 1
    assert policy.should_shrink(1)
    clock.now_s += KEEP_S
    assert not policy.should_shrink(1)


def test_never_shrinks_for_growing_batches() -> None:
    policy = ShrinkPolicy(clock := Clock())
    for rows in (1, 2, 2, 4):
        clock.now_s += 10 * KEEP_S
        assert not policy.should_shrink(rows)


def wide_graph() -> onnx.ModelProto:
    """The colour meter with a tensor of 32 MB for each clip, from which it computes a zero and adds it."""
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
def test_memory_of_a_large_batch_is_returned(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(wide_graph(), tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, provider, 1)
    clips = {"frames": np.zeros((8, *ONE_STREAM.inputs[0].shape(ONE_STREAM.frames)), np.uint8)}
    one = {"frames": clips["frames"][:1]}
    session.run(clips)
    large = resident_bytes()
    session.run(one)
    assert large - resident_bytes() < 50 * MB  # more large batches may arrive
    monkeypatch.setattr(memory, "KEEP_S", 0.0)
    session.run(one)
    assert large - resident_bytes() > 100 * MB

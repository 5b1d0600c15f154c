from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import PackageError, ProviderUnavailable
from service.manifest import GRAPH_FILE, Manifest, read_manifest
from service.runtime.providers import open_session
from service.runtime.session import InferenceFailed, Session
from service.runtime.signature import black_clip, check_signature, warm_up
from tests.tiny_models import GAIN, ONE_STREAM, TWO_STREAMS, TinyModel, graph, write_package

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
RED_THEN_BLUE = [(255, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 255)]


def opened(folder: Path, provider: str = "cpu") -> tuple[Session, Manifest]:
    return open_session(folder / GRAPH_FILE, provider, threads=1), read_manifest(folder)


def coloured(spec: ClipSpec) -> dict[str, Any]:
    """A batch of two clips: black, and red that turns blue at half time."""
    inputs = {name: np.concatenate([clip, clip]) for name, clip in black_clip(spec).items()}
    for clips in inputs.values():
        moments = clips.shape[1]
        for moment in range(moments):
            clips[1, moment] = RED_THEN_BLUE[moment * len(RED_THEN_BLUE) // moments]
    return inputs


@pytest.mark.parametrize("spec", [TWO_STREAMS, ONE_STREAM], ids=["two inputs", "one input"])
def test_a_graph_runs_on_a_batch_and_says_where(tmp_path: Path, spec: ClipSpec) -> None:
    session, manifest = opened(write_package(tmp_path, model=TinyModel(spec)))
    check_signature(session, manifest)
    outputs = session.run(coloured(spec))
    moments = len(next(iter(coloured(spec).values()))[0])
    assert session.provider == "cpu"
    assert outputs.logits == pytest.approx(np.array([[0, 0, 0], [GAIN / 2, 0, GAIN / 2]]))
    assert outputs.evidence[1] == pytest.approx(
        np.array([[GAIN, 0, 0], [0, 0, GAIN]]).repeat(moments // 2, 0)
    )
    assert outputs.evidence.mean(axis=1) == pytest.approx(outputs.logits)


def test_auto_takes_the_cpu_where_there_is_no_other(tmp_path: Path) -> None:
    session, _ = opened(write_package(tmp_path), "auto")
    assert session.provider == ("cuda" if HAS_CUDA else "cpu")


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_refused(tmp_path: Path, provider: str) -> None:
    with pytest.raises(ProviderUnavailable, match=f"provider {provider} is not part of the installed onnx"):
        opened(write_package(tmp_path), provider)


@pytest.mark.parametrize(("provider", "words"), [("openvino", "not supported"), ("abacus", "not known")])
def test_a_provider_that_this_build_has_not_is_refused(tmp_path: Path, provider: str, words: str) -> None:
    with pytest.raises(ProviderUnavailable, match=words):
        opened(write_package(tmp_path), provider)


def test_a_provider_that_fell_back_to_the_cpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime with CUDA built in but no driver answers so."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    folder = write_package(tmp_path)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderUnavailable, match="could only start CPUExecutionProvider"),
    ):
        opened(folder, "cuda")


def test_what_is_no_graph_is_a_package_error(tmp_path: Path) -> None:
    (tmp_path / GRAPH_FILE).write_bytes(b"this is no protocol buffer")
    with pytest.raises(PackageError, match="onnxruntime cannot load the graph"):
        open_session(tmp_path / GRAPH_FILE, "cpu", threads=1)


def test_a_batch_that_cannot_run_fails_by_name(tmp_path: Path) -> None:
    session, _ = opened(write_package(tmp_path))
    inputs = {name: clip[:, :2] for name, clip in black_clip(TWO_STREAMS).items()}
    with pytest.raises(InferenceFailed, match="onnxruntime could not run the graph"):
        session.run(inputs)


def manifest_of(folder: Path, **changes: Any) -> Manifest:
    write_package(folder / "other", **changes)
    return read_manifest(folder / "other" / "tiny" / "1")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (
            TinyModel(ClipSpec(8, (InputSpec("small", Frames.EVEN, 32, 36), TWO_STREAMS.inputs[1]))),
            "the graph's inputs are big, small, they must be big, little",
        ),
        (TinyModel(dtype=TensorProto.FLOAT), "input little is float32, it must be uint8"),
        (
            TinyModel(ClipSpec(8, (InputSpec("little", Frames.EVEN, 24, 36), TWO_STREAMS.inputs[1]))),
            r"input little has shape \(N, 4, 24, 24, 3\), it must be \(N, 4, 32, 32, 3\)",
        ),
        (
            TinyModel(ClipSpec(16, TWO_STREAMS.inputs)),
            r"input little has shape \(N, 8, 32, 32, 3\), it must be \(N, 4, 32, 32, 3\)",
        ),
        (TinyModel(batch=1), r"input little has shape \(1, 4, 32, 32, 3\), it must be \(N, 4, 32, 32, 3\)"),
        (TinyModel(classes=4), r"output logits has shape \(N, 4\), it must be \(N, 3\)"),
    ],
    ids=["other names", "float inputs", "other size", "other frames", "fixed batch", "other classes"],
)
def test_a_graph_that_is_not_what_its_manifest_says_is_refused(
    tmp_path: Path, model: TinyModel, complaint: str
) -> None:
    session, _ = opened(write_package(tmp_path, model=model))
    with pytest.raises(PackageError, match=complaint):
        check_signature(session, manifest_of(tmp_path))


def test_a_graph_without_evidence_is_refused(tmp_path: Path) -> None:
    network = graph(TinyModel())
    del network.graph.output[1]
    onnx.save(network, tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, "cpu", threads=1)
    with pytest.raises(PackageError, match="the graph's outputs are logits, they must be evidence, logits"):
        check_signature(session, manifest_of(tmp_path))


def test_a_graph_that_gives_no_finite_values_is_refused(tmp_path: Path) -> None:
    network = graph(TinyModel())
    network.graph.initializer[0].raw_data = np.full((3, 3), np.nan, np.float32).tobytes()
    onnx.save(network, tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, "cpu", threads=1)
    with pytest.raises(PackageError, match="not finite"):
        warm_up(session, manifest_of(tmp_path))

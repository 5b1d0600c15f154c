"""Sessions of both engines: the same outputs and errors, and what they report about themselves."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto

from service.clip.spec import ClipSpec, Frames, InputSpec
from service.engines import onnxruntime_session, openvino_session
from service.engines.openvino_session import check_in_use
from service.engines.providers import open_session
from service.engines.session import Arithmetic, InferenceFailed, Session
from service.errors import PackageError, ProviderUnavailable
from service.models.verify import black_clip, check_session, check_signature
from service.packages.manifest import GRAPH_FILE, Manifest, read_manifest
from tests.support.tiny_models import GAIN, ONE_STREAM, TWO_STREAMS, TinyModel, graph, write_package

RED_THEN_BLUE = [(255, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 255)]

on_every_engine = pytest.mark.parametrize("provider", ["cpu", "openvino"])


def opened(folder: Path, provider: str = "cpu", threads: int = 1) -> tuple[Session, Manifest]:
    return open_session(folder / GRAPH_FILE, provider, threads), read_manifest(folder)


def coloured(spec: ClipSpec) -> dict[str, Any]:
    """A batch of two clips: a black one, and one that changes from red to blue halfway."""
    inputs = {name: np.concatenate([clip, clip]) for name, clip in black_clip(spec).items()}
    for clips in inputs.values():
        moments = clips.shape[1]
        for moment in range(moments):
            clips[1, moment] = RED_THEN_BLUE[moment * len(RED_THEN_BLUE) // moments]
    return inputs


@on_every_engine
@pytest.mark.parametrize("spec", [TWO_STREAMS, ONE_STREAM], ids=["two inputs", "one input"])
def test_session_runs_a_batch_and_reports_its_provider(tmp_path: Path, spec: ClipSpec, provider: str) -> None:
    session, manifest = opened(write_package(tmp_path, model=TinyModel(spec)), provider)
    check_signature(session, manifest)
    outputs = session.run(coloured(spec))
    moments = len(next(iter(coloured(spec).values()))[0])
    assert (session.runtime.provider, session.runtime.arithmetic) == (provider, Arithmetic.F32)
    assert outputs.logits == pytest.approx(np.array([[0, 0, 0], [GAIN / 2, 0, GAIN / 2]]))
    assert outputs.evidence[1] == pytest.approx(
        np.array([[GAIN, 0, 0], [0, 0, GAIN]]).repeat(moments // 2, 0)
    )
    assert outputs.evidence.mean(axis=1) == pytest.approx(outputs.logits)


@on_every_engine
def test_features_are_returned_where_the_graph_has_them(tmp_path: Path, provider: str) -> None:
    session, manifest = opened(write_package(tmp_path, model=TinyModel(features=True)), provider)
    check_session(session, manifest, None)
    outputs = session.run(coloured(TWO_STREAMS))
    assert outputs.features is not None
    assert outputs.features[1] == pytest.approx(np.array(RED_THEN_BLUE) * 2.0)
    without, _ = opened(write_package(tmp_path, "plain"), provider)
    plain = without.run(coloured(TWO_STREAMS))
    assert plain.features is None
    assert np.array_equal(plain.logits, outputs.logits)


@pytest.mark.parametrize(("provider", "engine"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_session_reports_engine_version_threads_and_concurrency(
    tmp_path: Path, provider: str, engine: str
) -> None:
    runtime = opened(write_package(tmp_path), provider)[0].runtime
    installed = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.get_version().partition("-")[0]}
    assert (runtime.engine, runtime.version) == (engine, installed[engine])
    assert (runtime.threads, runtime.concurrency) == (1, 1)


@on_every_engine
def test_concurrent_threads_get_their_own_outputs(tmp_path: Path, provider: str) -> None:
    session, _ = opened(write_package(tmp_path), provider)
    greys = range(0, 256, 5)

    def ask(grey: int) -> float:
        clip = {name: np.full_like(array, grey) for name, array in black_clip(TWO_STREAMS).items()}
        return float(session.run(clip).logits[0, 0])

    with ThreadPoolExecutor(8) as threads:
        for grey, found in zip(greys, threads.map(ask, greys), strict=True):
            assert found == pytest.approx(grey * GAIN / 255, abs=1e-4)


def test_openvino_prepares_two_concurrent_one_thread_runs(tmp_path: Path) -> None:
    session = open_session(write_package(tmp_path) / GRAPH_FILE, "openvino", 1, concurrency=2)
    assert (session.runtime.threads, session.runtime.concurrency) == (1, 2)
    assert session.run(coloured(TWO_STREAMS)).logits.shape == (2, 3)


@on_every_engine
def test_outputs_stay_unchanged_when_the_session_runs_again(tmp_path: Path, provider: str) -> None:
    session, _ = opened(write_package(tmp_path), provider)
    first = session.run(coloured(TWO_STREAMS))
    kept = first.logits.copy()
    session.run({name: array[::-1] for name, array in coloured(TWO_STREAMS).items()})
    assert np.array_equal(first.logits, kept)


@contextmanager
def counting_cpu() -> Iterator[SimpleNamespace]:
    """`used_s`: CPU time of this process within the block."""
    found = SimpleNamespace(used_s=0.0)
    before = time.process_time()
    yield found
    found.used_s = time.process_time() - before


@on_every_engine
def test_no_thread_spins_after_a_run(tmp_path: Path, provider: str) -> None:
    session, _ = opened(write_package(tmp_path, model=TinyModel(work=512)), provider, threads=2)
    for _ in range(3):
        session.run(coloured(TWO_STREAMS))
    with counting_cpu() as idle:
        threading.Event().wait(0.5)
    assert idle.used_s < 0.01  # onnxruntime with default options takes 0.03


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_missing_provider_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match=f"the installed onnxruntime has no provider {provider}"):
        opened(write_package(tmp_path), provider)


def test_unknown_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="unknown provider 'abacus'"):
        opened(write_package(tmp_path), "abacus")


def test_provider_that_fell_back_to_the_cpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime does with CUDA but without a driver."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    folder = write_package(tmp_path)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderUnavailable, match="could only start CPUExecutionProvider"),
    ):
        opened(folder, "cuda")


def test_provider_that_runs_no_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Azure provider is part of every build, starts, and supports no operator."""
    idle = ("AzureExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setitem(onnxruntime_session.PROVIDERS, "cuda", idle)
    monkeypatch.setattr(onnxruntime_session, "provider_options", lambda *_: [{}, {}])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    folder = write_package(tmp_path)
    with pytest.raises(ProviderUnavailable, match=r"the graph's nodes run on CPUExecutionProvider \d+$"):
        opened(folder, "cuda")


@pytest.mark.parametrize("arithmetic", [Arithmetic.BF16, Arithmetic.F16])
def test_openvino_computes_in_16_bits_where_the_processor_supports_it(
    tmp_path: Path, arithmetic: Arithmetic
) -> None:
    path = write_package(tmp_path) / GRAPH_FILE
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if {"bf16": "BF16", "f16": "FP16"}[arithmetic] not in capabilities:
        with pytest.raises(ProviderUnavailable, match=f"this processor does not support {arithmetic}"):
            open_session(path, "openvino", 1, arithmetic=arithmetic)
        return
    session = open_session(path, "openvino", 1, arithmetic=arithmetic)
    assert session.runtime.arithmetic is arithmetic
    assert session.run(coloured(TWO_STREAMS)).logits[1] == pytest.approx([GAIN / 2, 0, GAIN / 2], rel=0.02)


def test_error_lists_the_arithmetics_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(openvino_session, "process_core", lambda: core)
    with pytest.raises(ProviderUnavailable, match=r"does not support bf16 \(only FP32, INT8\)"):
        open_session(write_package(tmp_path) / GRAPH_FILE, "openvino", 1, arithmetic=Arithmetic.BF16)


def test_openvino_in_another_arithmetic_is_refused(tmp_path: Path) -> None:
    path = write_package(tmp_path) / GRAPH_FILE
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    check_in_use(compiled, Arithmetic.F32)
    with pytest.raises(ProviderUnavailable, match="bf16 on CPU was requested, but OpenVINO uses f32 on CPU"):
        check_in_use(compiled, Arithmetic.BF16)


@pytest.mark.parametrize(
    ("provider", "engine"), [("cpu", "onnxruntime"), ("openvino", "OpenVINO")], ids=["cpu", "openvino"]
)
def test_file_that_is_no_graph_is_a_package_error(tmp_path: Path, provider: str, engine: str) -> None:
    (tmp_path / GRAPH_FILE).write_bytes(b"this is no protocol buffer")
    with pytest.raises(PackageError, match=f"^{engine} cannot load the graph: .+") as caught:
        open_session(tmp_path / GRAPH_FILE, provider, threads=1)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("provider", "engine"), [("cpu", "onnxruntime"), ("openvino", "OpenVINO")])
def test_failed_batch_names_the_engine_and_the_next_batch_runs(
    tmp_path: Path, provider: str, engine: str
) -> None:
    session, _ = opened(write_package(tmp_path), provider)
    inputs = {name: clip[:, :2] for name, clip in black_clip(TWO_STREAMS).items()}
    with pytest.raises(InferenceFailed, match=f"{engine} could not run the graph"):
        session.run(inputs)
    assert session.run(black_clip(TWO_STREAMS)).logits.shape == (1, 3)


def manifest_of(folder: Path, **changes: Any) -> Manifest:
    write_package(folder / "other", **changes)
    return read_manifest(folder / "other" / "tiny" / "1")


@on_every_engine
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
def test_graph_that_contradicts_its_manifest_is_refused(
    tmp_path: Path, model: TinyModel, complaint: str, provider: str
) -> None:
    session, _ = opened(write_package(tmp_path, model=model), provider)
    with pytest.raises(PackageError, match=complaint):
        check_signature(session, manifest_of(tmp_path))


@on_every_engine
def test_graph_without_evidence_is_refused(tmp_path: Path, provider: str) -> None:
    network = graph(TinyModel())
    del network.graph.output[1]
    onnx.save(network, tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, provider, threads=1)
    with pytest.raises(PackageError, match="the graph's outputs are logits, they must be evidence, logits"):
        check_signature(session, manifest_of(tmp_path))


@on_every_engine
def test_graph_with_values_that_are_not_finite_is_refused(tmp_path: Path, provider: str) -> None:
    onnx.save(graph(TinyModel(gain=float("nan"))), tmp_path / GRAPH_FILE)
    session = open_session(tmp_path / GRAPH_FILE, provider, threads=1)
    with pytest.raises(PackageError, match="not finite"):
        check_session(session, manifest_of(tmp_path), None)


CLOSED_ELSEWHERE = """
import os, signal, sys, threading
from pathlib import Path
from service.engines.providers import open_session

sessions = [open_session(Path(sys.argv[1]), sys.argv[2], 1)]

def close():
    sessions[0].close()
    sessions.clear()

closing = threading.Thread(target=close)
closing.start()
closing.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@on_every_engine
def test_signals_are_handled_after_another_thread_closed_a_session(tmp_path: Path, provider: str) -> None:
    """With AMX, OpenVINO unmaps the signal stack of the process, and the next signal would end it."""
    folder = write_package(tmp_path)
    command = [sys.executable, "-c", CLOSED_ELSEWHERE, str(folder / GRAPH_FILE), provider]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr

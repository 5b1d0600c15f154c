"""onnxruntime behind the session protocol: on the CPU, with CUDA, with TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from service.errors import PackageError, ProviderUnavailable
from service.runtime.batches import MOST
from service.runtime.memory import Growth
from service.runtime.onnxruntime_gpu import prepare_libraries, provider_options, run_on_device
from service.runtime.session import (
    Arithmetic,
    InferenceFailed,
    Inputs,
    Outputs,
    Runtime,
    Tensor,
    rows_of,
)
from service.runtime.signature import EVIDENCE, LOGITS

# What to ask onnxruntime for; nodes that a provider leaves over go to the next one.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
ERRORS_ONLY = 3  # its warnings go to standard error by themselves, past the log's format

# onnxruntime's exceptions have no common base of their own.
ENGINE_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)

SHRINKING = onnxruntime.RunOptions()
SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxRuntimeSession:
    """One graph in onnxruntime, on the provider that was asked for and no other."""

    def __init__(
        self,
        graph: Path,
        provider: str,
        threads: int,
        *,
        streams: int = 1,
        arithmetic: Arithmetic = Arithmetic.F32,
        max_batch: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """Load `graph`.

        Args:
            graph: path of the .onnx file.
            provider: `cpu`, `cuda` or `tensorrt`.
            threads: threads of one run, where it runs on the CPU; runs of several callers share them.
            streams: runs side by side; onnxruntime needs no preparation for them.
            arithmetic: what the graph computes in; CUDA and TensorRT round float32 to less by themselves.
            max_batch: largest batch that TensorRT builds its engine for; as large as batches may be, if None.
            cache_dir: where TensorRT keeps what it built; nowhere, if None.

        Raises:
            ProviderUnavailable: onnxruntime does not have the provider, or could not start it.
            PackageError: the graph cannot be loaded.
        """
        _require(provider)
        tensors = _tensors(_peek(graph)) if provider == "tensorrt" else ()
        options = provider_options(provider, arithmetic, tensors, max_batch or MOST, cache_dir)
        self._session = _load(graph, provider, options, threads)
        self._on_device = provider != "cpu"
        self._growth = Growth()
        self.inputs = _tensors(self._session.get_inputs())
        self.outputs = _tensors(self._session.get_outputs())
        self.runtime = Runtime("onnxruntime", onnxruntime.__version__, provider, arithmetic, threads, streams)

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch; see `Session`."""
        try:
            if self._on_device:
                logits, evidence = run_on_device(self._session, inputs, (LOGITS, EVIDENCE))
            else:
                options = SHRINKING if self._growth.over(rows_of(inputs)) else None
                logits, evidence = self._session.run([LOGITS, EVIDENCE], dict(inputs), options)
        except ENGINE_ERRORS as exc:
            raise InferenceFailed(f"onnxruntime could not run the graph: {exc}") from exc
        return Outputs(np.asarray(logits), np.asarray(evidence))

    def close(self) -> None:
        """Drop the engine's session, which frees its memory."""
        del self._session


def _require(provider: str) -> None:
    if PROVIDERS[provider][0] not in onnxruntime.get_available_providers():
        raise ProviderUnavailable(
            f"provider {provider} is not part of the installed onnxruntime (it has"
            f" {', '.join(onnxruntime.get_available_providers())}); blvnet-serve[gpu] brings one that does"
        )


def _load(
    graph: Path, provider: str, options: Sequence[dict[str, str]], threads: int
) -> onnxruntime.InferenceSession:
    wanted = PROVIDERS[provider]
    if provider != "cpu":
        prepare_libraries()
    providers = list(zip(wanted, options, strict=True))
    try:
        session = onnxruntime.InferenceSession(
            graph, _options(threads), providers=providers, enable_fallback=False
        )
    except ENGINE_ERRORS as exc:
        if provider != "cpu":
            _peek(graph)  # where it cannot be loaded at all, the package is to blame
            raise ProviderUnavailable(f"provider {provider} cannot be started: {_first_line(exc)}") from exc
        raise PackageError(f"onnxruntime cannot load the graph: {_first_line(exc)}") from exc
    # A provider that it cannot start onnxruntime may also leave out, saying so on standard error only.
    if wanted[0] not in session.get_providers():
        raise ProviderUnavailable(
            f"provider {provider} was asked for, onnxruntime could only start"
            f" {', '.join(session.get_providers())}; its driver or libraries are missing"
        )
    check_placement(session, wanted[0])
    return session


def check_placement(session: onnxruntime.InferenceSession, wanted: str) -> None:
    """Look at which provider the graph's nodes were given to.

    Raises:
        ProviderUnavailable: most of them to others than `wanted`, which was started but does not do the work.
    """
    placed = Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        placed[part.ep_name] += len(part.get_nodes())
    if placed and placed[wanted] * 2 < placed.total():
        found = ", ".join(f"{name} {count}" for name, count in placed.most_common())
        raise ProviderUnavailable(f"{wanted} was asked for, and the graph's nodes are on {found}")


def _peek(graph: Path) -> Sequence[onnxruntime.NodeArg]:
    """The graph's inputs, by loading it as cheaply as can be."""
    options = _options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except ENGINE_ERRORS as exc:
        raise PackageError(f"onnxruntime cannot load the graph: {_first_line(exc)}") from exc
    inputs: Sequence[onnxruntime.NodeArg] = session.get_inputs()
    return inputs


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # One block for all of a run's tensors, laid out for each batch size, takes more memory and saves no time.
    options.enable_mem_pattern = False
    # Threads that wait in a loop take the cores from the decode workers. Between two operators of a run they
    # wait so for a moment, which is worth a tenth of the run; after it not at all.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _tensors(nodes: Sequence[onnxruntime.NodeArg]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            node.name,
            DTYPES.get(node.type, node.type),
            tuple(length if isinstance(length, int) else None for length in node.shape),
        )
        for node in nodes
    )


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__

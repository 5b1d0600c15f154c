"""Sessions of onnxruntime, on the CPU, with CUDA or with TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from service.engines.batch_sizes import MAX_BATCH
from service.engines.memory import ShrinkPolicy
from service.engines.onnxruntime_gpu import prepare_libraries, provider_options, run_on_device
from service.engines.session import (
    Arithmetic,
    EngineInfo,
    InferenceFailed,
    Inputs,
    Outputs,
    Tensor,
    batch_length,
)
from service.errors import PackageError, ProviderUnavailable
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS, OUTPUTS

# onnxruntime's providers in order of preference. Nodes that one does not support are assigned to the next.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
ERRORS_ONLY = 3  # onnxruntime writes warnings to standard error itself, bypassing the log format

# onnxruntime's exceptions have no common base class.
ENGINE_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)

SHRINKING = onnxruntime.RunOptions()
SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxRuntimeSession:
    """A graph in onnxruntime on exactly one provider."""

    def __init__(
        self,
        graph: Path,
        provider: str,
        threads: int,
        *,
        concurrency: int = 1,
        arithmetic: Arithmetic = Arithmetic.F32,
        max_batch: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """Load `graph`.

        Args:
            graph: Path of the .onnx file.
            provider: `cpu`, `cuda` or `tensorrt`.
            threads: Threads of a run on the CPU; concurrent runs share them.
            concurrency: Concurrent runs. Only reported: onnxruntime needs no preparation for them.
            arithmetic: Number format. CUDA and TensorRT may use a less precise one for float32 by default.
            max_batch: Largest batch that TensorRT builds its engine for; `MAX_BATCH` if None.
            cache_dir: Folder for engines that TensorRT builds; None disables this cache.

        Raises:
            ProviderUnavailable: onnxruntime lacks the provider or cannot start it.
            PackageError: the graph cannot be loaded.
        """
        _require(provider)
        tensors = _tensors(_load_inputs(graph)) if provider == "tensorrt" else ()
        options = provider_options(provider, arithmetic, tensors, max_batch or MAX_BATCH, cache_dir)
        self._session = _load(graph, provider, options, threads)
        self._on_device = provider != "cpu"
        self._shrink_policy = ShrinkPolicy()
        self.inputs = _tensors(self._session.get_inputs())
        self.outputs = _tensors(self._session.get_outputs())
        has_features = any(tensor.name == FEATURES for tensor in self.outputs)
        self._output_names = OUTPUTS if has_features else (LOGITS, EVIDENCE)
        self.runtime = EngineInfo(
            "onnxruntime", onnxruntime.__version__, provider, arithmetic, threads, concurrency
        )

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch; see `Session`."""
        try:
            if self._on_device:
                arrays = run_on_device(self._session, inputs, self._output_names)
            else:
                shrink = self._shrink_policy.should_shrink(batch_length(inputs))
                arrays = self._session.run(self._output_names, dict(inputs), SHRINKING if shrink else None)
        except ENGINE_ERRORS as exc:
            raise InferenceFailed(f"onnxruntime could not run the graph: {exc}") from exc
        return Outputs(*map(np.asarray, arrays))

    def close(self) -> None:
        """Free the engine's session and its memory."""
        del self._session


def _require(provider: str) -> None:
    if PROVIDERS[provider][0] not in onnxruntime.get_available_providers():
        raise ProviderUnavailable(
            f"the installed onnxruntime has no provider {provider} (only"
            f" {', '.join(onnxruntime.get_available_providers())}); in a checkout: pip install '.[gpu]'"
        )


def _load(
    graph: Path, provider: str, options: Sequence[dict[str, str]], threads: int
) -> onnxruntime.InferenceSession:
    requested = PROVIDERS[provider]
    if provider != "cpu":
        prepare_libraries()
    providers = list(zip(requested, options, strict=True))
    try:
        session = onnxruntime.InferenceSession(
            graph, _options(threads), providers=providers, enable_fallback=False
        )
    except ENGINE_ERRORS as exc:
        if provider != "cpu":
            _load_inputs(graph)  # raises if the graph is at fault, not the provider
            raise ProviderUnavailable(f"provider {provider} cannot be started: {_first_line(exc)}") from exc
        raise PackageError(f"onnxruntime cannot load the graph: {_first_line(exc)}") from exc
    # onnxruntime may also drop a provider that it cannot start, with a message on standard error only.
    if requested[0] not in session.get_providers():
        raise ProviderUnavailable(
            f"provider {provider} was requested, but onnxruntime could only start"
            f" {', '.join(session.get_providers())}; the driver or its libraries are missing"
        )
    check_placement(session, requested[0])
    return session


def check_placement(session: onnxruntime.InferenceSession, requested: str) -> None:
    """Check that the requested provider runs at least half of the graph's nodes.

    Raises:
        ProviderUnavailable: most nodes were assigned to other providers.
    """
    placed = Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        placed[part.ep_name] += len(part.get_nodes())
    if placed and placed[requested] * 2 < placed.total():
        actual = ", ".join(f"{name} {count}" for name, count in placed.most_common())
        raise ProviderUnavailable(f"{requested} was requested, but the graph's nodes run on {actual}")


def _load_inputs(graph: Path) -> Sequence[onnxruntime.NodeArg]:
    """Return the graph's inputs, read by loading it on the CPU without optimisation."""
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
    # The memory pattern allocates one block per batch size for all tensors of a run: more memory, no gain.
    options.enable_mem_pattern = False
    # Spinning threads take CPU time from the decode workers. 50 us bridge the gap between two operators,
    # which makes a run 10 % faster; after a run they stop.
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

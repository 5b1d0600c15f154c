"""onnxruntime behind the session protocol: on the CPU, with CUDA, with TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from service.errors import PackageError, ProviderUnavailable
from service.runtime.session import InferenceFailed, Inputs, Outputs, Tensor
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


class OnnxRuntimeSession:
    """One graph in onnxruntime, on the provider that was asked for and no other."""

    def __init__(self, graph: Path, provider: str, threads: int) -> None:
        """Load `graph`.

        Args:
            graph: path of the .onnx file.
            provider: `cpu`, `cuda` or `tensorrt`.
            threads: threads of one run, where it runs on the CPU.

        Raises:
            ProviderUnavailable: onnxruntime does not have the provider, or could not start it.
            PackageError: the graph cannot be loaded.
        """
        self._session = _load(graph, provider, threads)
        self._provider = provider
        self.inputs = _tensors(self._session.get_inputs())
        self.outputs = _tensors(self._session.get_outputs())

    @property
    def provider(self) -> str:
        """The provider in use."""
        return self._provider

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch; see `Session`."""
        try:
            logits, evidence = self._session.run([LOGITS, EVIDENCE], dict(inputs))
        except ENGINE_ERRORS as exc:
            raise InferenceFailed(f"onnxruntime could not run the graph: {exc}") from exc
        return Outputs(np.asarray(logits), np.asarray(evidence))

    def close(self) -> None:
        """Drop the engine's session, which frees its memory."""
        del self._session


def has_provider(provider: str) -> bool:
    """Whether this onnxruntime was built with a provider; starting it can still fail."""
    return PROVIDERS[provider][0] in onnxruntime.get_available_providers()


def _load(graph: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
    wanted = PROVIDERS[provider]
    if not has_provider(provider):
        raise ProviderUnavailable(
            f"provider {provider} is not part of the installed onnxruntime (it has"
            f" {', '.join(onnxruntime.get_available_providers())}); blvnet-serve[gpu] brings one that does"
        )
    if provider != "cpu":
        onnxruntime.preload_dlls()  # CUDA and cuDNN may have come as Python packages
    try:
        session = onnxruntime.InferenceSession(str(graph), _options(threads), providers=list(wanted))
    except ENGINE_ERRORS as exc:
        raise PackageError(f"onnxruntime cannot load the graph: {_first_line(exc)}") from exc
    # Asked for CUDA and unable to start it, onnxruntime says so on standard error and takes the CPU.
    if wanted[0] not in session.get_providers():
        raise ProviderUnavailable(
            f"provider {provider} was asked for, onnxruntime could only start"
            f" {', '.join(session.get_providers())}; its driver or libraries are missing"
        )
    return session


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait in a loop take the cores from the decode workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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

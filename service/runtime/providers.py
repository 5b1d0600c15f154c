"""From the setting `provider` to a session: the only place that knows which engine serves which provider.

Engines are imported when they are wanted, so that one need not have them all.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from service.errors import ProviderUnavailable
from service.runtime.session import Session

AUTO = "auto"

logger = logging.getLogger(__name__)


def open_session(graph: Path, provider: str, threads: int) -> Session:
    """Load `graph` on `provider`: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`.

    `auto` takes CUDA where it truly starts, else the CPU; the session says which.

    Raises:
        ProviderUnavailable: the provider cannot be had.
        PackageError: the graph cannot be loaded.
    """
    match provider:
        case "openvino":
            raise ProviderUnavailable("provider openvino is not supported by this build; use cpu or auto")
        case "auto":
            return _open_best(graph, threads)
        case "cpu" | "cuda" | "tensorrt":
            return _open_onnxruntime(graph, provider, threads)
        case _:
            raise ProviderUnavailable(f"provider {provider!r} is not known")


def _open_best(graph: Path, threads: int) -> Session:
    _require_onnxruntime()
    from service.runtime.onnxruntime_session import has_provider

    if has_provider("cuda"):
        try:
            return _open_onnxruntime(graph, "cuda", threads)
        except ProviderUnavailable as exc:
            logger.warning("CUDA cannot be used, taking the CPU: %s", exc.message)
    return _open_onnxruntime(graph, "cpu", threads)


def _open_onnxruntime(graph: Path, provider: str, threads: int) -> Session:
    _require_onnxruntime()
    from service.runtime.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(graph, provider, threads)


def _require_onnxruntime() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        raise ProviderUnavailable(
            "onnxruntime is not installed; install blvnet-serve[cpu], or blvnet-serve[gpu] for NVIDIA GPUs"
        )

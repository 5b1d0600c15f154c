"""Engines for tests that show what runs a model, and need none that does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from service.runtime.choice import ChosenBy, Opened
from service.runtime.session import Arithmetic, Runtime

CPU = Runtime("onnxruntime", "1.32.0", "cpu", Arithmetic.F32, threads=2, streams=1)
OPENVINO = Runtime("openvino", "2026.4.1", "openvino", Arithmetic.BF16, threads=2, streams=1)


def opened(runtime: Runtime = CPU, chosen: ChosenBy = ChosenBy.ASKED, **measured_ms: float) -> Opened:
    """A package that runs on this; its session can say so, and no more."""
    session: Any = SimpleNamespace(runtime=runtime)
    return Opened(session, chosen, measured_ms)

"""Stand-ins for loaded packages in tests that only show engine information."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from service.engines.session import Arithmetic, EngineInfo
from service.models.engine_selection import ChosenBy, Opened

CPU = EngineInfo("onnxruntime", "1.32.0", "cpu", Arithmetic.F32, threads=2, concurrency=1)
OPENVINO = EngineInfo("openvino", "2026.4.1", "openvino", Arithmetic.BF16, threads=2, concurrency=1)


def opened(runtime: EngineInfo = CPU, chosen: ChosenBy = ChosenBy.ASKED, **measured_ms: float) -> Opened:
    """An opened package whose session only provides its engine information."""
    session: Any = SimpleNamespace(runtime=runtime)
    return Opened(session, chosen, measured_ms)

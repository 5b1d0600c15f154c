"""Stages of a request as OpenTelemetry spans.

The core depends on OpenTelemetry's API alone, which does nothing until `service.http.tracing` has set up an
exporter.
"""

from __future__ import annotations

import time

from opentelemetry import trace

NS_PER_MS = 1_000_000


def record_stages(*stages: tuple[str, float]) -> None:
    """Add spans for consecutive stages of the current request, the last of which has just ended.

    Args:
        stages: name and duration in milliseconds of each, in order.
    """
    if not trace.get_current_span().is_recording():
        return
    tracer = trace.get_tracer("service")
    end_ns = time.time_ns()
    for name, duration_ms in reversed(stages):
        start_ns = end_ns - int(duration_ms * NS_PER_MS)
        tracer.start_span(name, start_time=start_ns).end(end_ns)
        end_ns = start_ns

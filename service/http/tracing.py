"""Export of traces to an OpenTelemetry collector.

Tracing is configured with OpenTelemetry's own environment variables and is off unless one of them names a
collector. It needs the extra `otel`. The trace of a caller (W3C Trace Context) is continued.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from service.errors import BlvnetError
from service.installation import install_command

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
SERVICE_NAME = "blvnet-serve"
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
# Monitors ask for these every few seconds.
EXCLUDED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
# If an exporter is set up, FastAPI creates a span for each request, which continues the trace of the caller.
TELEMETRY = TelemetryConfig(
    metrics=False,
    logs=False,
    operation_spans=False,
    auto_configure=False,
    exclude=lambda scope: scope["path"] in EXCLUDED_PATHS,
)


class TracingUnavailable(BlvnetError):
    """A collector is configured, but spans cannot be sent to it."""

    exit_code = 2


def is_configured() -> bool:
    """Whether the environment names a collector."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not disabled and any(os.environ.get(name) for name in ENDPOINT_VARIABLES)


@contextmanager
def exporting() -> Iterator[None]:
    """Send spans to the configured collector during the block, in batches from a separate thread.

    Raises:
        TracingUnavailable: packages are missing, or an unsupported protocol is configured.
    """
    if not is_configured():
        yield
        return
    if any(not _is_installed(name) for name in NEEDED):
        raise TracingUnavailable(f"{ENDPOINT_VARIABLES[1]} needs more packages: {install_command('otel')}")
    for name in PROTOCOL_VARIABLES:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            raise TracingUnavailable(f"{name} is {os.environ[name]!r}; only {PROTOCOL!r} is supported.")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME),
            "service.version": version(SERVICE_NAME),
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that contains the module is missing
        return False

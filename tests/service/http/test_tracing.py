"""Spans that a real server exports to a collector; the collector is a stand-in that speaks OTLP over HTTP."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.http import tracing
from service.http.tracing import TracingUnavailable
from tests.support.http_servers import Received, Reply, answering
from tests.support.server import RunningServer, clean_environment, running_server

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# Spans leave every tenth of a second instead of every five seconds.
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


class Collector:
    """Keeps the spans that it receives at `url`."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def receive(self, request: Received) -> Reply:
        gzipped = request.headers.get("Content-Encoding") == "gzip"
        body = gzip.decompress(request.body) if gzipped else request.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = (item.value for item in resource.resource.attributes if item.key == "service.name")
            self.services |= {value.string_value for value in names}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return Reply()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    with answering(collector.receive) as collector.url:
        yield collector


@pytest.fixture(scope="module")
def traced(tiny_models: Path, collector: Collector) -> Iterator[RunningServer]:
    variables = FAST | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with running_server(tiny_models, variables) as server:
        yield server


def test_stages_are_spans_of_the_callers_trace(
    traced: RunningServer, collector: Collector, red_clip: bytes
) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    with traced.client(headers=headers) as client:
        assert client.post("/v1/classify", content=red_clip).is_success

    def of_trace() -> dict[str, Span]:
        spans = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
        return {span.name: span for span in spans} if len(spans) >= 6 else {}

    spans = traced.wait_for(of_trace, "spans of the request")
    request = spans.pop("POST /v1/classify")
    assert request.parent_span_id.hex() == PARENT_ID
    assert set(spans) == {"receive", "queue", "decode", "inference"}
    for span in spans.values():
        assert span.parent_span_id == request.span_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
    decode, inference = spans["decode"], spans["inference"]
    assert spans["receive"].end_time_unix_nano <= decode.start_time_unix_nano
    assert decode.end_time_unix_nano <= inference.start_time_unix_nano
    assert collector.services == {"blvnet-serve"}


def test_probes_are_no_spans(traced: RunningServer, collector: Collector, red_clip: bytes) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        assert traced.get(path).is_success
    traced.wait_for(lambda: [span for span in collector.spans if "/v1/models" in span.name], "a span")
    assert {span.name for span in collector.spans if "z" in span.name or "metrics" in span.name} == set()


def test_unreachable_collector_does_not_disturb_requests(tiny_models: Path, red_clip: bytes) -> None:
    variables = FAST | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with running_server(tiny_models, variables) as server:
        assert server.post(red_clip).is_success
        assert server.stop() == 0


def test_unsupported_protocol_stops_the_start(tiny_models: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    command = [str(Path(sys.executable).with_name("blvnet")), "serve", "--models", str(tiny_models)]
    done = subprocess.run(
        command, env=clean_environment() | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; only 'http/protobuf' is supported." in done.stderr


ANY, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    ("variables", "configured"),
    [
        ({}, False),
        ({ANY: ""}, False),
        ({ANY: "http://collector:4318"}, True),
        ({TRACES: "http://collector:4318/v1/traces"}, True),
        ({ANY: "http://collector:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({ANY: "http://collector:4318", "OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_a_collector_turns_tracing_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], configured: bool
) -> None:
    for name in (ANY, TRACES, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_configured() is configured


@pytest.mark.parametrize("name", tracing.PROTOCOL_VARIABLES)
def test_other_protocols_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(ANY, "http://127.0.0.1:9")
    monkeypatch.setenv(name, "grpc")
    message = f"^{name} is 'grpc'; only 'http/protobuf' is supported"
    with pytest.raises(TracingUnavailable, match=message), tracing.exporting():
        raise AssertionError("spans are exported")


@pytest.mark.parametrize("missing", tracing.NEEDED)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None if name == missing else find_spec(name))
    monkeypatch.setenv(ANY, "http://127.0.0.1:9")
    with pytest.raises(TracingUnavailable, match=r"needs more packages: .*otel"), tracing.exporting():
        raise AssertionError("spans are exported")

"""Metrics in Prometheus formats; test_server covers /healthz, /readyz and /metrics otherwise."""

from __future__ import annotations

import httpx
import onnxruntime
import pytest

from tests.support.server import RunningServer

CONTRACT = {
    "blvnet_requests_total": "counter",
    "blvnet_request_seconds": "histogram",
    "blvnet_stage_seconds": "histogram",
    "blvnet_rejected_total": "counter",
    "blvnet_predictions_total": "counter",
    "blvnet_batch_size": "histogram",
    "blvnet_queue_depth": "gauge",
    "blvnet_inflight_requests": "gauge",
    "blvnet_decode_workers": "gauge",
    "blvnet_decode_worker_restarts_total": "counter",
    "blvnet_model_info": "gauge",
    "blvnet_upload_bytes": "histogram",
}


@pytest.mark.parametrize(("name", "kind"), CONTRACT.items())
def test_metric_of_the_contract_is_exposed(server: RunningServer, name: str, kind: str) -> None:
    assert f"# TYPE {name} {kind}\n" in server.get("/metrics").text


def test_exposition_is_openmetrics_on_request(server: RunningServer) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with server.client(headers=accept) as client:
        answer: httpx.Response = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_stages_of_a_clip_are_those_of_the_contract(server: RunningServer, red_clip: bytes) -> None:
    server.post(red_clip)
    for stage in ("receive", "decode", "queue", "inference"):
        assert server.metric("blvnet_stage_seconds_count", stage=stage, model="tiny") >= 1


def test_info_names_the_model_and_its_provider(server: RunningServer) -> None:
    labels = {"model": "tiny", "version": "1", "precision": "fp32", "provider": "cpu"}
    runtime = {"engine": f"onnxruntime {onnxruntime.__version__}", "arithmetic": "f32"}
    assert server.metric("blvnet_model_info", **labels, **runtime) == 1

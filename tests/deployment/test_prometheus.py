"""A real Prometheus scrapes a real service with the project's configuration, rules and dashboard."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.common.service_process import free_port
from tests.support.observability import Prometheus, expressions, prometheus_process, recorded
from tests.support.server import RunningServer, read_response, running_server
from tests.support.tools import need

# These have no series in a new service without failures.
EMPTY_WHILE_ALL_IS_WELL = (
    "blvnet_cache_requests_total",
    "blvnet_decode_worker_restarts_total",
    "blvnet_jobs",
    "blvnet_model_refused",
    "blvnet_taught_examples",
    "ALERTS{",
)
# For uploads that take half a second to a second.
PAUSES_S = [0.5 + number / 40 for number in range(20)]


@pytest.fixture(scope="module")
def watched_server(tiny_models: Path) -> Iterator[RunningServer]:
    """A separate server, so that no other requests are counted."""
    need("prometheus", "promtool", package="prometheus")
    with running_server(tiny_models) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(
    watched_server: RunningServer, red_clip: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus after two red videos and two text files were posted."""
    target = watched_server.url.removeprefix("http://")
    with prometheus_process(target, free_port(), tmp_path_factory.mktemp("prometheus")) as prometheus:
        # A new counter has no rate until its second scrape.
        for requests in (1, 2):
            assert watched_server.post(red_clip).status_code == 200
            assert watched_server.post(b"not a video").status_code == 415
            prometheus.wait_for(f'blvnet_requests_total{{route="/v1/classify",code="415"}} >= {requests}')
        yield prometheus


def test_target_is_up(prometheus: Prometheus) -> None:
    assert prometheus.value('up{job="blvnet"}') == 1


def test_answered_request_is_counted(prometheus: Prometheus) -> None:
    assert prometheus.value('blvnet_requests_total{route="/v1/classify",code="200"}') == 2
    assert prometheus.value('blvnet_predictions_total{model="tiny",label="red"}') == 2


def test_rejected_request_is_counted_by_reason(prometheus: Prometheus) -> None:
    assert prometheus.value('blvnet_rejected_total{reason="not_a_video"}') == 2


@pytest.mark.parametrize(
    "expression", [expression for panel in expressions().values() for expression in panel]
)
def test_panel_has_data(prometheus: Prometheus, expression: str) -> None:
    if any(name in expression for name in EMPTY_WHILE_ALL_IS_WELL):
        assert prometheus.query(expression) == []
    else:
        assert prometheus.wait_for(expression)


@pytest.mark.parametrize("name", recorded())
def test_rule_records_data(prometheus: Prometheus, name: str) -> None:
    assert prometheus.wait_for(name)


def test_no_alert_fires(prometheus: Prometheus) -> None:
    assert prometheus.query("ALERTS") == []


def test_exposition_passes_promtool_without_a_warning(watched_server: RunningServer) -> None:
    exposition = watched_server.get("/metrics").content
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_median_of_answers_is_that_of_the_callers_when_nearly_all_are_refused(
    watched_server: RunningServer, prometheus: Prometheus, red_clip: bytes
) -> None:
    """Each upload takes a given time, so that the latencies differ without using CPU time."""

    def upload(pause_s: float) -> float:
        began = time.monotonic()
        with watched_server.begin_upload(len(red_clip), red_clip[:-1]) as connection:
            time.sleep(pause_s)
            connection.sendall(red_clip[-1:])
            assert read_response(connection).status_code == 200
            return time.monotonic() - began

    answered = len(PAUSES_S)
    answered_before = prometheus.value('blvnet_requests_total{route="/v1/classify",code="200"}')
    with ThreadPoolExecutor(answered) as pool, watched_server.client() as client:
        uploads = pool.map(upload, PAUSES_S)
        for _ in range(99 * answered):
            assert client.post("/v1/classify", params={"model": "none"}, content=b"").status_code == 404
        latencies = list(uploads)
    refused, all_answered = (
        f'sum(blvnet_request_seconds_count{{outcome="{outcome}",route="/v1/classify"}})'
        for outcome in ("refused", "answered")
    )
    # A scrape in between has only the fast answers, so its median is lower.
    prometheus.wait_for(f"{all_answered} >= {answered_before + answered} and {refused} > 97 * {answered}")
    [panel] = expressions()["Half of the answers within"]
    assert prometheus.value(panel) == pytest.approx(statistics.median(latencies), rel=0.1)

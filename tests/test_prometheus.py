"""A real Prometheus scrapes a real service, with the project's own configuration, rules and dashboard."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import free_port
from tests.observability import Prometheus, expressions, prometheus_process, recorded
from tests.server import RunningServer, running_server
from tests.tools import need

# Nothing has died, is refused or fires in a service that just started, so these have no series yet.
EMPTY_WHILE_ALL_IS_WELL = ("blvnet_decode_worker_restarts_total", "blvnet_model_refused", "ALERTS{")


@pytest.fixture(scope="module")
def watched_server(tiny_models: Path) -> Iterator[RunningServer]:
    """A server of our own: others would be counted along."""
    need("prometheus", "promtool", package="prometheus")
    with running_server(tiny_models) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(
    watched_server: RunningServer, red_clip: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that has seen two red clips and two texts posted."""
    target = watched_server.url.removeprefix("http://")
    with prometheus_process(target, free_port(), tmp_path_factory.mktemp("prometheus")) as prometheus:
        # Counters that are born with their first count have no rate yet: let them be scraped between two.
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


def test_refused_request_is_counted_by_its_reason(prometheus: Prometheus) -> None:
    assert prometheus.value('blvnet_rejected_total{reason="not_a_video"}') == 2


@pytest.mark.parametrize(
    "expression", [expression for panel in expressions().values() for expression in panel]
)
def test_panel_shows_something(prometheus: Prometheus, expression: str) -> None:
    if any(name in expression for name in EMPTY_WHILE_ALL_IS_WELL):
        assert prometheus.query(expression) == []
    else:
        assert prometheus.wait_for(expression)


@pytest.mark.parametrize("name", recorded())
def test_rule_records_something(prometheus: Prometheus, name: str) -> None:
    assert prometheus.wait_for(name)


def test_no_alert_fires(prometheus: Prometheus) -> None:
    assert prometheus.query("ALERTS") == []


def test_exposition_passes_promtool_without_a_warning(watched_server: RunningServer) -> None:
    exposition = watched_server.get("/metrics").content
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")

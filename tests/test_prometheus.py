"""A real Prometheus scrapes a real service, with the project's own configuration, rules and dashboard."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.serving import classify, free_port, service
from tests.observability import Prometheus, expressions, prometheus_process, recorded
from tests.tiny_models import colour_clip, write_package
from tests.tools import need

# Nothing has died and no alert fires in a service that just started, so these have no series yet.
EMPTY_WHILE_ALL_IS_WELL = ("blvnet_decode_worker_restarts_total", "ALERTS{")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Prometheus]]:
    """A client of a running service with a tiny model, and a Prometheus that scrapes it."""
    need("prometheus", "promtool", package="prometheus")
    write_package(models := tmp_path_factory.mktemp("models"))
    with (
        service(models) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
        prometheus_process(
            running.url.removeprefix("http://"), free_port(), tmp_path_factory.mktemp("prometheus")
        ) as prometheus,
    ):
        # Counters that are born with their first count have no rate yet: let them be scraped between two.
        for requests in (1, 2):
            classify(client, colour_clip((255, 0, 0)))
            assert client.post("/v1/classify", content=b"not a video").status_code == 415
            prometheus.wait_for(f'blvnet_requests_total{{route="/v1/classify",code="415"}} >= {requests}')
        yield client, prometheus


def test_target_is_up(watched: tuple[httpx.Client, Prometheus]) -> None:
    assert watched[1].value('up{job="blvnet"}') == 1


def test_answered_request_is_counted(watched: tuple[httpx.Client, Prometheus]) -> None:
    assert watched[1].value('blvnet_requests_total{route="/v1/classify",code="200"}') == 2
    assert watched[1].value('blvnet_predictions_total{model="tiny",label="red"}') == 2


def test_refused_request_is_counted_by_its_reason(watched: tuple[httpx.Client, Prometheus]) -> None:
    assert watched[1].value('blvnet_rejected_total{reason="not_a_video"}') == 2


@pytest.mark.parametrize(
    "expression", [expression for panel in expressions().values() for expression in panel]
)
def test_panel_shows_something(watched: tuple[httpx.Client, Prometheus], expression: str) -> None:
    if any(name in expression for name in EMPTY_WHILE_ALL_IS_WELL):
        assert watched[1].query(expression) == []
    else:
        assert watched[1].wait_for(expression)


@pytest.mark.parametrize("name", recorded())
def test_rule_records_something(watched: tuple[httpx.Client, Prometheus], name: str) -> None:
    assert watched[1].wait_for(name)


def test_no_alert_fires(watched: tuple[httpx.Client, Prometheus]) -> None:
    assert watched[1].query("ALERTS") == []


def test_exposition_passes_promtool_without_a_warning(watched: tuple[httpx.Client, Prometheus]) -> None:
    exposition = watched[0].get("/metrics").content
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")

"""A real Prometheus scrapes a Ray cluster of two nodes with the configuration of the documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray.cluster_utils import Cluster

from benchmarks.common.service_process import free_port
from tests.support.observability import Prometheus, prometheus_process
from tests.support.server import PATIENCE_S, clean_environment
from tests.support.tools import need

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
NODES = 2
# Longer than the time between two reports of Ray, and than several evaluations of the rules.
WATCHED_S = 10


def documented_scrape() -> dict[str, Any]:
    """The scrape configuration of docs/operations.md for Ray."""
    [block] = re.findall(r"```yaml\n(scrape_configs:.*?)```", OPERATIONS.read_text(), flags=re.DOTALL)
    [scrape] = yaml.safe_load(block)["scrape_configs"]
    return dict(scrape)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # For sockets, whose paths must be short.
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_metrics_report_interval_ms", "2000")
        patch.setenv("RAY_worker_niceness", "0")  # alongside other tests its workers would start late
        node = {"num_cpus": 1, "object_store_memory": 80_000_000}
        running = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": True})
        try:
            running.add_node(**node)
            yield running
        finally:
            running.shutdown()


@pytest.fixture(scope="module")
def address(cluster: Cluster, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one replica, which runs on one of the nodes."""
    port = free_port()
    folder = tmp_path_factory.mktemp("serve")
    application = {
        "name": "blvnet",
        "route_prefix": "/",
        "import_path": "service.ray_app:build",
        "args": {"num_replicas": 1, "num_cpus": 0.5, "models": str(tiny_models)},
    }
    config = {
        "proxy_location": "HeadOnly",  # nodes of one machine cannot share the port
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("serve")), "run", str(folder / "serve.yaml")]
    environment = clean_environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": cluster.address}
    log = folder / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()


def discovery_file(cluster: Cluster) -> Path:
    """The file in which the head node lists the targets of Prometheus."""
    return Path(cluster.head_node.get_temp_dir_path()) / "prom_metrics_service_discovery.json"


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass  # still starting
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def prometheus(
    cluster: Cluster, address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    need("prometheus", package="prometheus")
    scrape = documented_scrape()
    [discovery] = scrape["file_sd_configs"]
    found = discovery_file(cluster)
    assert found.name == Path(discovery["files"][0]).name
    discovery["files"] = [str(found)]
    discovery["refresh_interval"] = "1s"
    # As in docker/prometheus. A scrape may take as long, and beside other tests some take more than a second;
    # without one the service would be absent.
    scrape["scrape_interval"] = "5s"
    with prometheus_process(scrape, free_port(), tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def test_every_agent_is_up_and_the_replica_is_counted_once(prometheus: Prometheus, cluster: Cluster) -> None:
    # The head node has other targets in addition to its agent.
    targets = len(json.loads(discovery_file(cluster).read_text())[0]["targets"])
    assert targets > NODES
    assert prometheus.wait_for(f'count(up{{job="ray"}} == 1) == {targets}')
    assert prometheus.wait_for('count(blvnet_build_info{job="ray"}) == 1')
    assert prometheus.wait_for('blvnet_model_info{job="ray",model="tiny"} == 1')


def test_answers_are_counted_under_the_documented_names(
    prometheus: Prometheus, address: str, red_clip: bytes
) -> None:
    assert httpx.post(f"{address}/v1/classify", content=red_clip).status_code == 200
    assert prometheus.wait_for('sum(blvnet_requests_total{job="ray",code="200",route="/v1/classify"}) == 1')


def test_no_alert_is_pending_or_fires(prometheus: Prometheus) -> None:
    assert prometheus.wait_for('count(blvnet_build_info{job="ray"}) == 1')
    end = time.monotonic() + WATCHED_S
    while time.monotonic() < end:
        assert prometheus.query("ALERTS") == []
        time.sleep(1)

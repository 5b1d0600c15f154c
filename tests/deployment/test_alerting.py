"""The path of an alert: service, Prometheus, Alertmanager with the project's configuration, webhook."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.service_process import free_port
from tests.support.http_servers import Received, Reply, answering
from tests.support.observability import PATIENCE_S, PROMETHEUS_FOLDER, ROOT, prometheus_process
from tests.support.server import starting_server
from tests.support.tools import need

# The durations of the rules, divided by this.
FASTER = 10


@contextmanager
def webhook() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """A receiver of alerts; yields its URL and the documents that it gets."""
    received: queue.Queue[dict[str, Any]] = queue.Queue()

    def receive(request: Received) -> Reply:
        received.put(json.loads(request.body))
        return Reply()

    with answering(receive) as url:
        yield f"{url}/alerts", received


@contextmanager
def alertmanager(webhook_url: str, folder: Path) -> Iterator[str]:
    """Alertmanager as compose starts it, but without waiting for further alerts; yields its address."""
    shutil.copytree(ROOT / "docker/alertmanager", folder / "config")
    path = folder / "config/alertmanager.yml"
    path.write_text(re.sub(r"group_wait: \S+", "group_wait: 0s", path.read_text()))
    (folder / "bin").mkdir()
    installed = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
    (folder / "bin/alertmanager").symlink_to(str(installed))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "sh", str(folder / "config/start.sh"), f"--storage.path={folder}/data", "--cluster.listen-address=",
        f"--web.listen-address={address}", "--log.level=error",
    ]  # fmt: skip
    variables = {
        "ALERT_WEBHOOK": webhook_url,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "TMPDIR": str(folder),
    }
    with subprocess.Popen(command, env=os.environ | variables) as process:
        try:
            yield address
        finally:
            process.terminate()


def faster_rules(folder: Path) -> Path:
    """The rules with all durations in minutes shortened; longer ones are unchanged."""

    def shorter(match: re.Match[str]) -> str:
        return f"{int(match[1]) * 60 // FASTER}s"

    text = re.sub(r"\b(\d+)m(?=[\]\s])", shorter, (PROMETHEUS_FOLDER / "rules.yml").read_text())
    (folder / "rules.yml").write_text(re.sub(r"for: 30s", "for: 3s", text))
    return folder / "rules.yml"


def test_crash_loop_ends_in_a_webhook(tiny_models: Path, tmp_path: Path) -> None:
    need("prometheus", package="prometheus")
    if shutil.which("alertmanager") is None:
        need("prometheus-alertmanager", package="prometheus-alertmanager")
    service_port = free_port()
    with (
        webhook() as (url, received),
        alertmanager(url, tmp_path) as address,
        prometheus_process(
            f"127.0.0.1:{service_port}",
            free_port(),
            tmp_path,
            rules=faster_rules(tmp_path),
            alertmanager=address,
        ) as prometheus,
    ):
        for _ in range(4):
            with starting_server(tiny_models, PORT=service_port) as server:
                started_s = server.wait_for(lambda: metric_of(server), "the metrics")
                prometheus.wait_for(f"blvnet_start_time_seconds > {started_s} - 0.01")
                server.process.kill()
        fired: dict[str, dict[str, Any]] = {}
        while "BlvnetRestarting" not in fired:
            document = received.get(timeout=PATIENCE_S)
            fired |= {alert["labels"]["alertname"]: alert for alert in document["alerts"]}
    alert = fired["BlvnetRestarting"]
    assert alert["status"] == "firing"
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#blvnetrestarting"


def metric_of(server: Any) -> float:
    """The start time that a server reports."""
    return float(server.metric("blvnet_start_time_seconds"))


@pytest.mark.parametrize(
    "webhook_url",
    ["", "http://127.0.0.1:1/alerts", r"https://hooks.example/alerts?version=1&key=a|b\c&last=%2F"],
)
def test_alertmanager_accepts_its_configuration(webhook_url: str, tmp_path: Path) -> None:
    need("amtool", package="prometheus-alertmanager")
    (tmp_path / "alertmanager").write_text("#!/bin/sh\n")
    (tmp_path / "alertmanager").chmod(0o755)
    variables = {
        "ALERT_WEBHOOK": webhook_url,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    subprocess.run(["sh", ROOT / "docker/alertmanager/start.sh"], env=os.environ | variables, check=True)
    written = tmp_path / "alertmanager.yml"
    subprocess.run(["amtool", "check-config", written], check=True, capture_output=True)
    assert ("webhook_configs" in written.read_text()) is bool(webhook_url)
    assert (f"url: {webhook_url}\n" in written.read_text()) or not webhook_url

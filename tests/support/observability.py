"""Runs Prometheus, and extracts the expressions of the dashboard and the rules."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS_FOLDER = ROOT / "docker/prometheus"
DASHBOARD = ROOT / "docker/grafana/dashboards/blvnet.json"
METRIC = re.compile(r"\b(?:blvnet[_:][a-z0-9_:]+|process_[a-z_]+)\b")
PATIENCE_S = 60.0


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard as its JSON document."""
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def expressions() -> dict[str, list[str]]:
    """PromQL expressions by panel title, with Grafana's variables set to "All"."""
    return {
        panel["title"]: [_filled(target["expr"]) for target in panel["targets"]]
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }


def metrics_in(expression: str) -> set[str]:
    """Metric families that a PromQL expression reads, with histograms by family name."""
    # Quoted parts are label values, such as names of alerts.
    bare = re.sub(r'"[^"]*"', '""', expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in METRIC.findall(bare)}


def recorded() -> dict[str, str]:
    """Expressions of the recording rules by name."""
    groups = yaml.safe_load((PROMETHEUS_FOLDER / "rules.yml").read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if "record" in rule}


class Prometheus:
    """Queries a running Prometheus."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression to an instant vector; fail on PromQL errors."""
        answer = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Wait until an expression has a sample and return its instant vector."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if result := self.query(expression):
                    return result
            except (httpx.TransportError, json.JSONDecodeError):
                pass  # still starting
            time.sleep(0.2)
        raise AssertionError(f"after {PATIENCE_S:.0f} s Prometheus still has no sample of {expression}")

    def alertmanagers(self) -> list[str]:
        """The addresses of the Alertmanagers that get the alerts."""
        found = self._http.get("/api/v1/alertmanagers").json()["data"]["activeAlertmanagers"]
        return [alertmanager["url"] for alertmanager in found]

    def value(self, expression: str) -> float:
        """Wait until an expression has a sample and return its only sample."""
        [sample] = self.wait_for(expression)
        return float(sample["value"][1])


@contextmanager
def prometheus_process(
    target: str | dict[str, Any],
    port: int,
    folder: Path,
    *,
    rules: Path | None = None,
    alertmanager: str | None = None,
) -> Iterator[Prometheus]:
    """Prometheus with the project's configuration, except for fixed targets and shorter intervals.

    Args:
        target: address of the service, or a scrape configuration.
        port: port of Prometheus.
        folder: for its data.
        rules: other rules than the project's.
        alertmanager: address that gets the alerts, if any.
    """
    config = yaml.safe_load((PROMETHEUS_FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules or PROMETHEUS_FOLDER / "rules.yml")]
    targets = [] if alertmanager is None else [alertmanager]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = targets
    if isinstance(target, str):
        [scrape] = (job for job in config["scrape_configs"] if job["job_name"] == "blvnet")
        del scrape["dns_sd_configs"]
        scrape["static_configs"] = [{"targets": [target]}]
    else:
        scrape = target
    config["scrape_configs"] = [scrape]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with subprocess.Popen(command) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        try:
            yield Prometheus(http)
        finally:
            process.terminate()


def _filled(expression: str) -> str:
    for variable, value in {
        "$__rate_interval": "1m",
        "$__range": "1h",
        "$instance": ".*",
        "$model": ".*",
    }.items():
        expression = expression.replace(variable, value)
    return expression

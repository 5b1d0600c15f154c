"""The manifests as kubectl builds them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.support.observability import PROMETHEUS_FOLDER, ROOT

KUBERNETES = ROOT / "docker/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
PROMETHEUS_RULE = KUBERNETES / "overlays/monitored/prometheusrule.yaml"
VERSION = "1.37"
# Custom resources by kind, with the fields that the manifests use; any other field is an error.
SCHEMAS = json.loads(Path(__file__).with_name("custom_resources.json").read_text())
HEAD = """\
# Made from docker/prometheus/rules.yml by: python -m tests.kubernetes
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: blvnet
  namespace: blvnet
spec:
"""


def build(folder: Path) -> list[dict[str, Any]]:
    """The resources of a kustomization."""
    kubectl = Path(sys.executable).with_name("kubectl")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def check(resource: dict[str, Any]) -> None:
    """Validate a resource strictly; raises `kubernetes_validate.ValidationError` or that of jsonschema."""
    if (kind := resource["kind"]) not in SCHEMAS["kinds"]:
        kubernetes_validate.validate(resource, VERSION, strict=True)
        return
    jsonschema.validate(resource, SCHEMAS["kinds"][kind] | {"$defs": SCHEMAS["$defs"]})
    for template in pod_templates(resource):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)


def pod_templates(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayService."""
    cluster = resource["spec"].get("rayClusterConfig", {})
    groups = [cluster[name] for name in ("headGroupSpec",) if name in cluster]
    return [group["template"] for group in (*groups, *cluster.get("workerGroupSpecs", ()))]


def prometheus_rule() -> str:
    """The rules of docker/prometheus as a resource of the Prometheus operator."""
    rules = (PROMETHEUS_FOLDER / "rules.yml").read_text()
    return HEAD + textwrap.indent(rules[rules.index("groups:") :], "  ")

"""The Kubernetes manifests: built by kubectl and validated strictly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.kubernetes.manifests import KUBERNETES, OVERLAYS, PROMETHEUS_RULE, build, check, prometheus_rule
from tests.support.observability import recorded
from tests.support.tools import need

INVALID = (kubernetes_validate.ValidationError, jsonschema.ValidationError)


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The resources of every overlay, with a file of keys."""
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    for overlay in OVERLAYS:
        (folder / "overlays" / overlay / "api-keys").write_text("key")
    return {overlay: build(folder / "overlays" / overlay) for overlay in OVERLAYS}


def of_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only resource of a kind."""
    [resource] = [resource for resource in resources if resource["kind"] == kind]
    return resource


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_valid(overlays: dict[str, list[dict[str, Any]]], overlay: str) -> None:
    for resource in overlays[overlay]:
        check(resource)


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "wrong"),
    [
        ("plain", "Deployment", "spec/template/spec/containers/0", "readynessProbe"),
        ("plain", "PodDisruptionBudget", "spec", "minUnavailable"),
        ("monitored", "ServiceMonitor", "spec/endpoints/0", "intervall"),
        ("monitored", "PrometheusRule", "spec/groups/0/rules/0", "expression"),
        ("monitored", "HorizontalPodAutoscaler", "spec", "maximumReplicas"),
        ("ray", "RayService", "spec/rayClusterConfig", "workerGroups"),
        (
            "ray",
            "RayService",
            "spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0",
            "command_",
        ),
    ],
)
def test_misspelled_field_is_rejected(
    overlays: dict[str, list[dict[str, Any]]], overlay: str, kind: str, path: str, wrong: str
) -> None:
    resource = yaml.safe_load(yaml.safe_dump(of_kind(overlays[overlay], kind)))
    place = resource
    for name in path.split("/"):
        place = place[int(name) if name.isdigit() else name]
    place[wrong] = {}
    with pytest.raises(INVALID):
        check(resource)


def test_monitored_overlay_has_every_kind(overlays: dict[str, list[dict[str, Any]]]) -> None:
    assert {resource["kind"] for resource in overlays["monitored"]} == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Secret",
        "Service",
        "ServiceMonitor",
    }
    assert "replicas" not in of_kind(overlays["monitored"], "Deployment")["spec"]


def test_selectors_match_the_pods(overlays: dict[str, list[dict[str, Any]]]) -> None:
    resources = overlays["monitored"]
    labels = of_kind(resources, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        of_kind(resources, "Service")["spec"]["selector"],
        of_kind(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        of_kind(resources, "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    monitored = of_kind(resources, "ServiceMonitor")["spec"]
    service = of_kind(resources, "Service")["metadata"]["labels"]
    assert monitored["selector"]["matchLabels"].items() <= service.items()
    # The job that the rules expect.
    assert service[monitored["jobLabel"]] == "blvnet"


def test_pod_gets_the_settings_and_the_keys_and_enough_time_to_stop(
    overlays: dict[str, list[dict[str, Any]]],
) -> None:
    resources = overlays["plain"]
    pod = of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    config = of_kind(resources, "ConfigMap")
    assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
    settings = {name.removeprefix("BLVNET_").lower(): value for name, value in config["data"].items()}
    assert settings.keys() | {"api_keys_file"} <= set(Settings.model_fields)
    stop_s = float(settings["shutdown_delay_s"]) + float(settings["shutdown_grace_s"])
    assert (
        pod["terminationGracePeriodSeconds"] > stop_s + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < float(settings["shutdown_delay_s"])
    keys = next(volume for volume in pod["volumes"] if volume["name"] == "keys")
    assert keys["secret"]["secretName"] == of_kind(resources, "Secret")["metadata"]["name"]
    [path] = [item["value"] for item in container["env"] if item["name"] == "BLVNET_API_KEYS_FILE"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert path == f"{mounts['keys']}/{next(iter(of_kind(resources, 'Secret')['data']))}"


def test_build_without_keys_fails() -> None:
    with pytest.raises(AssertionError, match="api-keys"):
        build(KUBERNETES / "overlays/plain")


def test_rules_are_those_of_compose(tmp_path: Path) -> None:
    assert PROMETHEUS_RULE.read_text() == prometheus_rule(), "run: python -m tests.kubernetes"
    spec = yaml.safe_load(PROMETHEUS_RULE.read_text())["spec"]
    assert {rule.get("record") for group in spec["groups"] for rule in group["rules"]} > set(recorded())
    need("promtool", package="prometheus")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True)


def test_ray_accepts_the_application(overlays: dict[str, list[dict[str, Any]]]) -> None:
    from ray.serve.schema import ServeDeploySchema  # takes seconds, and only this test needs it

    service = of_kind(overlays["ray"], "RayService")["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    assert config.applications[0].import_path == "service.ray_app:build"
    secret = of_kind(overlays["ray"], "Secret")["metadata"]["name"]
    [worker] = service["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["env"][0]["valueFrom"]["secretKeyRef"]["name"] == secret

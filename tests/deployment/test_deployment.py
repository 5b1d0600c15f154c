"""Make targets, pins, container files, Prometheus rules and the dashboard, without starting a container."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import files, metadata, packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from service import health_check
from service.http.app import create_app
from service.settings import Settings, load_settings
from tests.support.observability import (
    PROMETHEUS_FOLDER,
    ROOT,
    dashboard,
    expressions,
    metrics_in,
    recorded,
)
from tests.support.tools import need

NOT_FOR_SERVING = {
    "torch",
    "onnx",
    "onnxscript",
    "opencv-python-headless",
    "matplotlib",
    "pytest",
    "mypy",
    "ruff",
}
TAUGHT = "/var/lib/blvnet/taught"
TARGETS = ["install", "serve", "test", "lint", "bench", "up", "down", "clean"]


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make on the project's Makefile in `folder`, without variables of an outer make."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that make reads, without a virtual environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def with_environment(checkout: Path, *stamps: str) -> Path:
    """Create `.venv` with the given stamps."""
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", *stamps):
        (checkout / ".venv" / name).touch()
    return checkout


# --- make ---


@pytest.mark.parametrize("target", TARGETS)
def test_help_lists_target(checkout: Path, target: str) -> None:
    assert re.search(rf"^  make {target} +\S", make(checkout).stdout, re.MULTILINE)


def test_serve_takes_port_models_and_host(checkout: Path) -> None:
    result = make(checkout, "-n", "serve", "PORT=9000", "MODELS=my models", "HOST=0.0.0.0", "EXTRA=cpu")
    assert "blvnet serve --host 0.0.0.0 --port 9000 --models 'my models'" in result.stdout
    assert "--teach-dir 'taught'" in result.stdout
    assert "--teach-dir" not in make(checkout, "-n", "serve", "EXTRA=cpu", "TEACH_DIR=").stdout


def test_serve_listens_on_loopback_regardless_of_host_variable_of_the_shell(checkout: Path) -> None:
    assert "--host 127.0.0.1 --port 8000" in make(checkout, "-n", "serve", HOST="0.0.0.0").stdout


def test_serve_in_fresh_checkout_makes_environment_and_installs_serving_only(checkout: Path) -> None:
    result = make(checkout, "-n", "serve", "EXTRA=cpu")
    assert "-m venv .venv" in result.stdout
    assert "--constraint constraints.txt --editable '.[cpu]'" in result.stdout
    assert "[dev]" not in result.stdout


@pytest.mark.parametrize("stamps", [(".serve-cpu",), (".serve-cpu", ".dev")])
def test_second_serve_starts_at_once(checkout: Path, stamps: tuple[str, ...]) -> None:
    result = make(with_environment(checkout, *stamps), "-n", "serve", "EXTRA=cpu")
    assert result.stdout.startswith("exec .venv/bin/blvnet serve")


@pytest.mark.parametrize(("target", "stamp"), [("test", ".serve-cpu"), ("serve", ".dev")])
def test_environment_for_one_purpose_is_extended_for_the_other(
    checkout: Path, target: str, stamp: str
) -> None:
    result = make(with_environment(checkout, stamp), "-n", target, "EXTRA=cpu")
    assert "venv .venv" not in result.stdout
    assert "-m pip" in result.stdout


def test_changed_pins_are_installed_again(checkout: Path) -> None:
    with_environment(checkout, ".serve-cpu")
    os.utime(checkout / "constraints.txt", (2**32, 2**32))
    assert "-m pip" in make(checkout, "-n", "serve", "EXTRA=cpu").stdout


def test_gpu_machine_serves_with_gpu_extra(checkout: Path, tmp_path: Path) -> None:
    programs = fake_programs(tmp_path / "bin", "nvidia-smi")
    result = make(checkout, "-n", "serve", PATH=f"{programs}:{os.environ['PATH']}")
    assert "'.[gpu]'" in result.stdout


def test_too_old_python_is_reported_with_a_remedy(checkout: Path, tmp_path: Path) -> None:
    old = fake_programs(tmp_path / "bin", "python3.9", status=1) / "python3.9"
    result = make(checkout, "install", f"PYTHON={old}")
    assert result.returncode == 2
    assert f"Python 3.11 or newer is needed; tried: {old}. Name one with PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


def test_newer_python_is_used_if_the_first_is_too_old(checkout: Path, tmp_path: Path) -> None:
    fake_programs(tmp_path / "bin", "python3", "python3.13", status=1)
    programs = fake_programs(tmp_path / "bin", "python3.12")
    make(checkout, ".venv/bin/python", PATH=f"{programs}:{os.environ['PATH']}")
    assert "python3.12 -m venv .venv" in (tmp_path / "calls").read_text().splitlines()


def test_serve_starts_at_once_after_install(checkout: Path) -> None:
    fake_programs(with_environment(checkout) / ".venv/bin", "python")
    assert make(checkout, "install", "EXTRA=cpu").returncode == 0
    assert make(checkout, "-n", "serve", "EXTRA=cpu").stdout.startswith("exec .venv/bin/blvnet serve")


def test_up_gives_containers_memory_for_their_cores_and_models(checkout: Path) -> None:
    (checkout / "models").mkdir()
    (checkout / "models/weights").write_bytes(os.urandom(10_000_000))
    command = make(checkout, "-n", "up", "COMPOSE=compose", "MODELS=models", "EXTRA=cpu").stdout
    [memory_mb] = re.findall(r"MEMORY=(\d+)m", command)
    assert 0 <= int(memory_mb) - 1600 - 400 * len(os.sched_getaffinity(0)) - 4 * 10 <= 8
    assert "MEMORY=9g" in make(checkout, "-n", "up", "COMPOSE=compose", "MEMORY=9g").stdout


def test_up_starts_replicas_behind_a_proxy(checkout: Path) -> None:
    one = make(checkout, "-n", "up", "COMPOSE=compose", "EXTRA=cpu").stdout
    three = make(checkout, "-n", "up", "COMPOSE=compose", "EXTRA=cpu", "REPLICAS=3").stdout
    assert "--scale service=1" in one
    assert "compose.scale.yml" not in one
    assert "-f docker/compose.scale.yml" in three
    assert "--scale service=3" in three


def test_up_adds_the_override_files_that_apply(checkout: Path) -> None:
    result = make(checkout, "-n", "up", "COMPOSE=compose", "MODELS=/srv/models", "EXTRA=gpu", "PORT=9000")
    files = "-f docker-compose.yml -f docker/compose.gpu.yml -f docker/compose.models.yml"
    assert "BIND=127.0.0.1 PORT=9000 MODELS='/srv/models'" in result.stdout
    assert re.search(rf" compose {re.escape(files)} +up ", result.stdout)


# --- .ci/run ---


def fake_programs(folder: Path, *names: str, status: int = 0) -> Path:
    """A folder of programs that append their calls to the file `calls` and exit with `status`."""
    folder.mkdir(exist_ok=True)
    for name in names:
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/../calls"\nexit {status}\n')
        script.chmod(0o755)
    return folder


def test_ci_runs_tests_even_when_lint_fails_and_reports_the_failure(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", checkout / ".ci/run")
    fake_programs(tmp_path / "bin", "apt-get")
    programs = fake_programs(tmp_path / "bin", "make", status=3)
    result = subprocess.run(
        [checkout / ".ci/run"],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert result.returncode == 3
    assert [call for call in calls if call.startswith("make")] == ["make lint", "make test"]


# --- pins ---


def pins() -> dict[str, str]:
    """Versions in constraints.txt by distribution."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def closure(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """The installed dependencies of `name[extras]`, including itself, with their extras."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen.add(item)
            yield item
            waiting += wanted_by(*item)


def wanted_by(name: str, extras: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """The direct requirements of an installed distribution that apply on this machine."""
    for line in requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        ):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def test_serving_does_not_depend_on_training_packages() -> None:
    names = {name for name, _ in closure("blvnet-serve", frozenset({"cpu"}))}
    assert "onnxruntime" in names
    assert not names & NOT_FOR_SERVING


def test_every_development_dependency_is_pinned_to_the_installed_version() -> None:
    names = {name for name, _ in closure("blvnet-serve", frozenset({"dev"}))} - {"blvnet-serve", "setuptools"}
    assert {"torch", "pytest"} <= names
    assert {name: version(name).partition("+")[0] for name in names} == {
        name: pins().get(name) for name in names
    }


def test_pins_support_the_python_of_debian() -> None:
    """Others support the newest patch releases of Python 3.11 only."""
    names = {name for name, _ in closure("blvnet-serve", frozenset({"dev"}))}
    needed = {name: SpecifierSet(metadata(name)["Requires-Python"] or "") for name in names}
    assert [str(name) for name, versions in needed.items() if "3.11.2" not in versions] == []


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (["service"], {"cpu", "openvino"}),
        (["model_export"], {"train"}),
        (["tests", "benchmarks", "examples"], {"dev"}),
    ],
)
def test_everything_imported_is_declared(folders: list[str], extras: set[str]) -> None:
    declared = {name for name, _ in closure("blvnet-serve", frozenset(extras))}
    providers = packages_distributions()
    modules = {
        module for folder in folders for path in (ROOT / folder).rglob("*.py") for module in imports(path)
    }
    foreign = modules - set(sys.stdlib_module_names) - {"service", "model_export", "tests", "benchmarks"}
    if "benchmarks" in folders:
        foreign -= peers()
    if "service" in folders:
        foreign -= extra("ray") | extra("redis") | extra("batch")
    undeclared = {
        module
        for module in foreign
        if not {canonicalize_name(name) for name in providers.get(module, ())} & declared
    }
    assert undeclared == set()


def peers() -> set[str]:
    """Packages of the benchmark's peers, which are installed in a separate environment."""
    lines = (ROOT / "benchmarks" / "serving_race/peers" / "requirements.txt").read_text().splitlines()
    required = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name for requirement in required if requirement.specifier}


def extra(name: str) -> set[str]:
    """The packages of an extra, which may not be installed."""
    lines = [Requirement(line) for line in requires("blvnet-serve") or []]
    return {item.name for item in lines if item.marker and item.marker.evaluate({"extra": name})}


def imports(path: Path) -> Iterator[str]:
    """Top-level modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


def test_requirements_of_the_image_are_complete_pinned_and_hashed() -> None:
    text = (ROOT / "docker/requirements/cpu.txt").read_text()
    blocks = re.findall(
        r"^(\S+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    assert len(blocks) == len(re.findall(r"^[^# -]", text, re.MULTILINE))
    versions = {canonicalize_name(name): pinned for name, pinned, _ in blocks}
    needed = {name for name, _ in closure("blvnet-serve", frozenset({"cpu", "redis"}))} - {"blvnet-serve"}
    assert versions.pop(canonicalize_name("async-timeout"))  # for older patch releases of Python 3.11
    assert versions == {name: pins()[name] for name in needed}


# --- licences ---


def test_bill_of_materials_names_every_library_in_the_wheels_of_the_image(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    needed = {name for name, _ in closure("blvnet-serve", frozenset({"cpu", "redis"}))} - {"blvnet-serve"}
    for name in needed:
        for folder in {Path(str(file.locate())) for file in files(name) or () if "/" in str(file)}:
            relative = folder.relative_to(Path(sysconfig.get_path("purelib")))
            with suppress(FileExistsError, ValueError):
                (packages / relative.parts[0]).symlink_to(
                    Path(sysconfig.get_path("purelib")) / relative.parts[0]
                )
    command = [sys.executable, str(ROOT / "docker/sbom.py"), str(packages), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    document = (tmp_path / "out/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    components = {component["name"]: component for component in json.loads(document)["components"]}
    libraries = [path.name for path in (packages / "av.libs").iterdir()]
    assert len(libraries) > 20
    assert set(libraries) <= components.keys()
    assert all(component["licenses"] for component in components.values())
    notices = (tmp_path / "out/THIRD_PARTY_NOTICES.txt").read_text()
    assert re.search(r"contains libx264-\S+ \(x264\): GPL-2.0-or-later", notices)
    assert all(name in notices for name in components)


# --- container files ---


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The (instruction, arguments) of a Dockerfile in docker/, with continuation lines joined."""
    text = (ROOT / "docker" / dockerfile).read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def final_stage(dockerfile: str) -> dict[str, str]:
    """The last arguments of each instruction in the final stage."""
    stage: dict[str, str] = {}
    for word, rest in instructions(dockerfile):
        stage = {} if word == "FROM" else stage | {word: rest}
    return stage


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.train"])
def test_image_runs_as_an_unprivileged_user(dockerfile: str) -> None:
    assert final_stage(dockerfile)["USER"] == "10001:10001"


def test_serving_image_starts_the_service_without_a_shell() -> None:
    assert final_stage("Dockerfile")["CMD"] == '["blvnet", "serve", "--host", "0.0.0.0"]'


def test_serving_image_installs_nothing_in_its_final_stage_and_never_training() -> None:
    assert "RUN" not in final_stage("Dockerfile")
    assert not re.search(r"torch|\[train|apt-get", (" ".join(map(" ".join, instructions("Dockerfile")))))


class ComposeLoader(yaml.SafeLoader):
    """Reads compose files with `!reset`, which removes what an earlier file sets."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


def compose() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services: dict[str, Any] = document["services"]
    return services


def test_every_container_drops_its_privileges_and_has_a_memory_limit() -> None:
    scaled = yaml.load((ROOT / "docker/compose.scale.yml").read_text(), ComposeLoader)["services"]
    for service in (*compose().values(), scaled["proxy"], scaled["redis"]):
        assert service["logging"]["options"]["max-file"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]


def test_service_container_writes_to_memory_only() -> None:
    service = compose()["service"]
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]


def test_compose_waits_longer_than_the_shutdown_grace_period() -> None:
    grace = re.fullmatch(r"\$\{STOP_GRACE:-(\d+)s\}", compose()["service"]["stop_grace_period"])
    assert grace is not None
    assert float(grace[1]) > Settings.model_fields["shutdown_grace_s"].default + 5


def test_ports_are_published_on_loopback_by_default() -> None:
    published = [port for service in compose().values() for port in service["ports"]]
    assert len(published) == 4
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in published)


def test_every_setting_of_the_shell_reaches_the_container() -> None:
    assert compose()["service"]["env_file"] == "docker/service.env"
    lines = (ROOT / "docker/service.env").read_text().splitlines()
    passed = {line.removeprefix("BLVNET_").lower() for line in lines if not line.startswith("#")}
    fixed = {"host", "port", "models", "api_keys_file", "admin_key_file", "revision"}
    assert passed == set(Settings.model_fields) - fixed


def test_compose_has_the_health_check_of_the_image() -> None:
    command = json.loads(final_stage("Dockerfile")["HEALTHCHECK"].partition("CMD ")[2])
    assert command == ["python3", "-m", health_check.__name__]
    assert compose()["service"]["healthcheck"]["test"] == ["CMD", *command]


def test_every_setting_in_container_files_exists() -> None:
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "docker/Dockerfile"))
    text += "".join(path.read_text() for path in (ROOT / "docker").glob("compose.*.yml"))
    named = set(re.findall(r"\bBLVNET_([A-Z_]*[A-Z])\b", text)) - {"API_KEYS"}
    assert {"PORT", "PROVIDER", "MODELS"} <= named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


@pytest.mark.parametrize("extra", sorted(path.name for path in (ROOT / "docker").glob("compose.*.yml")))
def test_compose_files_merge(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELS", "API_KEYS_FILE", "ADMIN_KEY_FILE"):
        monkeypatch.setenv(name, "/srv/files")
    monkeypatch.delenv("BLVNET_TEACH_DIR", raising=False)
    podman_compose = Path(sys.executable).with_name("podman-compose")
    command = [str(podman_compose), "-f", "docker-compose.yml", "-f", f"docker/{extra}", "config"]
    merged = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    service = yaml.safe_load(merged)["services"]["service"]
    assert service["read_only"] is True
    # Only one service can use a folder of taught models.
    assert service["environment"]["BLVNET_TEACH_DIR"] == ("" if "scale" in extra else TAUGHT)


def test_models_are_taught_on_the_volume_of_the_image() -> None:
    assert f"BLVNET_TEACH_DIR={TAUGHT}" in final_stage("Dockerfile")["ENV"]
    assert "state:/var/lib/blvnet" in compose()["service"]["volumes"]


# --- Prometheus and Grafana ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", PROMETHEUS_FOLDER / "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS_FOLDER / "rules.yml"),
        ("test", "rules", PROMETHEUS_FOLDER / "rules.test.yml"),
    ],
    ids=["configuration", "rules", "tests of the rules"],
)
def test_promtool_accepts(arguments: tuple[str | Path, ...]) -> None:
    need("promtool", package="prometheus")
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def exposed() -> set[str]:
    """The metric families of a running service, counters with their `_total`."""
    registry = create_app(load_settings()).state.service.metrics.registry
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
        if family.name.startswith(("blvnet_", "process_"))
    }


def test_every_metric_has_a_panel() -> None:
    shown = {
        name for panel in expressions().values() for expression in panel for name in metrics_in(expression)
    }
    assert {name for name in exposed() if name.startswith("blvnet_")} <= shown


def test_dashboard_and_rules_read_only_what_is_exposed_or_recorded() -> None:
    rules = yaml.safe_load((PROMETHEUS_FOLDER / "rules.yml").read_text())["groups"]
    texts = [rule["expr"] for group in rules for rule in group["rules"]]
    texts += [expression for panel in expressions().values() for expression in panel]
    read = {name for text in texts for name in metrics_in(text)}
    assert read - exposed() <= set(recorded())


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    explained = set(re.findall(r"`(blvnet_\w+)`", text))
    assert explained == {name for name in exposed() if name.startswith("blvnet_")}


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    groups = yaml.safe_load((PROMETHEUS_FOLDER / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_every_alert_links_to_its_runbook() -> None:
    sections = re.findall(r"^### (Blvnet\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"


def test_every_alert_fires_in_a_unit_test() -> None:
    tests = yaml.safe_load((PROMETHEUS_FOLDER / "rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts())


def test_dashboard_works_with_any_data_source_and_job_and_describes_every_panel() -> None:
    text = json.dumps(dashboard())
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert len(panels) > 15
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert dashboard()["templating"]["list"][0]["type"] == "datasource"
    assert "job=" not in text
    assert all(panel["description"] for panel in dashboard()["panels"])


def test_grafana_provisioning_matches_the_mounts_of_compose() -> None:
    folder = ROOT / "docker/grafana/provisioning"
    [provider] = yaml.safe_load((folder / "dashboards/blvnet.yml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in compose()["grafana"]["volumes"])
    assert provider["options"]["path"] == mounts["./docker/grafana/dashboards"]
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_panels_have_unique_titles_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [cell for panel in panels for cell in cells_of(panel["gridPos"])]
    assert len(cells) == len(set(cells))


def cells_of(position: dict[str, int]) -> list[tuple[int, int]]:
    """The cells of Grafana's 24-column grid that a panel covers."""
    columns = range(position["x"], position["x"] + position["w"])
    return [(x, y) for x in columns for y in range(position["y"], position["y"] + position["h"])]

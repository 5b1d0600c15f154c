"""Broken packages next to a good one in a real server: refused by name, and the good one serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.packages.folders import bundled_models
from service.packages.manifest import GRAPH_FILE, MANIFEST_FILE
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import write_package
from tests.support.tools import need

Break = Callable[[Path], object]


def with_manifest(text: str) -> Break:
    return lambda folder: (folder / MANIFEST_FILE).write_text(text)


def with_field(name: str, text: str) -> Break:
    """Replace the value of a field by JSON text."""

    def replace(folder: Path) -> None:
        document = json.loads((folder / MANIFEST_FILE).read_text()) | {name: "HERE"}
        (folder / MANIFEST_FILE).write_text(json.dumps(document).replace('"HERE"', text))

    return replace


def as_fifo(name: str) -> Break:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replace


def as_folder(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).mkdir()


def as_link_to_a_device(folder: Path) -> None:
    (folder / GRAPH_FILE).unlink()
    (folder / GRAPH_FILE).symlink_to("/dev/zero")


KINDS: dict[str, tuple[Break, str]] = {
    "nested": (with_field("provenance", "[" * 100_000 + "]" * 100_000), "recursion limit exceeded"),
    "nested-everything": (with_manifest("[" * 100_000), "recursion limit exceeded"),
    "many-digits": (with_field("frames", "9" * 5000), "number out of range"),
    "large-number": (with_field("frames", "9" * 400), "frames is 999"),
    "large-float": (with_field("gmacs", "1e999"), "gmacs is inf: should be a finite number"),
    "large-parity": (with_field("parity", '{"logits": 1e999}'), "parity"),
    "nan": (with_field("parity", '{"logits": NaN}'), "parity"),
    "surrogate": (with_field("labels", '["\\ud800", "b", "c"]'), "unexpected end of hex escape"),
    "not-utf8": (lambda folder: (folder / MANIFEST_FILE).write_bytes(b'{"name": "\xe9"}'), "JSON"),
    "fifo": (as_fifo(MANIFEST_FILE), "model.json cannot be read: not a regular file"),
    "fifo-graph": (as_fifo(GRAPH_FILE), "model.onnx cannot be read: not a regular file"),
    "folder": (as_folder, "model.json cannot be read: not a regular file"),
    "device": (as_link_to_a_device, "model.onnx cannot be read: not a regular file"),
    "locked": (lambda folder: folder.chmod(0), "model.json cannot be read: Permission denied"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a good package and one of each kind."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, "good")
    for name, (damage, _) in KINDS.items():
        damage(write_package(models, name))
    for raw in (b"caf\xe9", b"two\nlines"):
        shutil.copytree(models / "good", models / os.fsdecode(raw))
    (models / "lost+found").mkdir(mode=0)
    (models / "loop").symlink_to("loop")
    (models / "good" / "2").symlink_to("2")
    (models / "good" / "99999999999999999999").mkdir()
    (models / "good" / "007").mkdir()
    yield models
    (models / "lost+found").chmod(0o700)
    (models / "locked" / "1").chmod(0o700)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[RunningServer]:
    with running_server(models, prefix=without_override()) as running:
        yield running


def without_override() -> list[str]:
    """A command prefix that makes permissions apply to root too."""
    if os.geteuid() != 0:
        return []
    need("setpriv", package="util-linux")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def entries(server: RunningServer) -> dict[tuple[str, int], dict[str, Any]]:
    listing = server.get("/v1/models").json()["models"]
    return {(entry["name"], entry["version"]): entry for entry in listing}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_package_is_refused_by_name(entries: dict[Any, dict[str, Any]], kind: str) -> None:
    entry = entries[kind, 1]
    assert entry["state"] == "refused"
    assert KINDS[kind][1] in entry["reason"]


@pytest.mark.parametrize("shown", ["caf\\xe9", "two\\nlines"], ids=["not UTF-8", "line break"])
def test_package_in_a_folder_whose_name_cannot_be_shown_is_refused(
    entries: dict[Any, dict[str, Any]], shown: str
) -> None:
    assert entries[shown, 1]["state"] == "refused"
    assert "the folder's name must be letters" in entries[shown, 1]["reason"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lost+found", "Permission denied"), ("loop", "Too many levels"), ("good/2", "Too many levels")],
)
def test_folder_that_cannot_be_read_is_named_in_the_log(
    server: RunningServer, name: str, reason: str
) -> None:
    [line] = [line for line in server.log if str(line.get("event")).startswith(f"model {name} is refused")]
    assert reason in line["event"]


def test_good_package_serves_and_metrics_name_the_refused_ones(
    server: RunningServer, entries: dict[Any, dict[str, Any]], red_clip: bytes
) -> None:
    assert entries["good", 1]["state"] == "ready"
    assert {version for name, version in entries if name == "good"} == {1}
    answer = server.post(red_clip, model="good")
    assert answer.json()["predictions"][0]["label"] == "red"
    assert server.metric("blvnet_model_refused", model="nested", version="1") == 1
    repository = server.get("/v2/models/good")
    assert repository.is_success


def test_models_command_names_every_broken_package(models: Path) -> None:
    command = [*without_override(), str(Path(sys.executable).with_name("blvnet")), "models", "--json"]
    done = subprocess.run([*command, "--models", models], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    states = {entry["name"]: entry["state"] for entry in json.loads(done.stdout)["models"]}
    assert states.pop("good") == "ready"
    assert {*KINDS, "lost+found", "loop", "caf\\xe9"} <= states.keys()
    assert set(states.values()) == {"refused"}


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_overwriting_a_served_package_in_place_does_not_end_the_process(
    tmp_path: Path, red_clip: bytes, provider: str
) -> None:
    """`cp` over a package truncates its files. Mapped weights then raise SIGBUS when they are read."""
    shutil.copytree(bundled_models(), tmp_path / "models")
    graphs = list((tmp_path / "models").rglob("*.onnx"))
    with running_server(tmp_path / "models", PROVIDER=provider) as server:
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not [graph for graph in graphs if str(graph) in mapped]
        before = server.post(red_clip).json()["predictions"]
        for graph in graphs:
            subprocess.run(["cp", "/dev/null", graph], check=True)
        answer = server.post(red_clip)
        assert answer.json()["predictions"] == before
        assert server.process.poll() is None

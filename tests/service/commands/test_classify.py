"""`blvnet classify`: with a server and without one, the same answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.service.test_cli import blvnet
from tests.support.server import RunningServer
from tests.support.tiny_models import colour_clip

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two valid clips, a text file and a missing one."""
    folder = tmp_path_factory.mktemp("clips")
    files = {name: folder / f"{name}.mp4" for name in ("red", "blue", "text", "missing")}
    files["red"].write_bytes(colour_clip((255, 0, 0)))
    files["blue"].write_bytes(colour_clip((0, 0, 255)))
    files["text"].write_text("just words. " * 100)
    return files


@pytest.fixture(params=["local", "server"])
def source(request: pytest.FixtureRequest, tiny_models: Path, server: RunningServer) -> list[str]:
    """Options for each of the two ways to get an answer."""
    return ["--models", str(tiny_models)] if request.param == "local" else ["--server", server.url]


def results(done: Done) -> list[dict[str, Any]]:
    document: dict[str, Any] = json.loads(done.stdout)
    assert list(document) == ["results"]
    found: list[dict[str, Any]] = document["results"]
    return found


def test_json_has_every_clip_in_order(clips: dict[str, Path], source: list[str]) -> None:
    done = blvnet("classify", clips["red"], clips["blue"], *source, "--json", "--top-k", 2)
    assert done.returncode == 0, done.stderr
    red, blue = results(done)
    assert [red["clip"], blue["clip"]] == [str(clips["red"]), str(clips["blue"])]
    assert [item["predictions"][0]["label"] for item in (red, blue)] == ["red", "blue"]
    assert len(red["predictions"]) == 2
    assert list(red) == [
        "clip", "model", "predictions", "video", "sampled", "evidence", "timing_ms", "sha256", "provider",
    ]  # fmt: skip


def test_bad_clip_does_not_stop_the_others(clips: dict[str, Path], source: list[str]) -> None:
    done = blvnet("classify", clips["text"], clips["missing"], clips["red"], *source, "--json")
    assert done.returncode == 1
    text, missing, red = results(done)
    assert text["error"]["code"] == "not_a_video"
    assert missing["error"]["code"] == "bad_request"
    assert "No such file" in missing["error"]["detail"]
    assert red["predictions"][0]["label"] == "red"


def test_table_shows_labels_and_errors(clips: dict[str, Path], source: list[str]) -> None:
    done = blvnet("classify", clips["red"], clips["text"], *source, COLUMNS="200")
    assert done.returncode == 1
    assert "green" in done.stdout
    assert "not_a_video" in done.stdout


def test_progress_goes_to_standard_error(clips: dict[str, Path], tiny_models: Path) -> None:
    done = blvnet("classify", clips["red"], clips["blue"], "--models", tiny_models)
    assert done.stderr.splitlines() == ["classified 1 of 2", "classified 2 of 2"]


def test_unknown_model_is_an_error_of_the_clip(clips: dict[str, Path], source: list[str]) -> None:
    done = blvnet("classify", clips["red"], *source, "--model", "nonesuch", "--json")
    assert done.returncode == 1
    assert results(done)[0]["error"]["code"] == "model_not_found"


def test_views_are_requested(clips: dict[str, Path], source: list[str]) -> None:
    done = blvnet("classify", clips["red"], *source, "--clips", 2, "--crops", 3, "--json")
    assert len(results(done)[0]["sampled"]["frames"]) == 16


def test_missing_server_ends_the_command(clips: dict[str, Path]) -> None:
    done = blvnet("classify", clips["red"], "--server", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "http://127.0.0.1:9 does not answer: Connection refused; is the service running" in done.stderr
    assert done.stderr.count("\n") == 1

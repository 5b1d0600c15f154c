"""`blvnet models`: good and bad packages, for people and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from service.commands.models import models
from tests.support.tiny_models import TinyModel, write_head, write_package


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A good package, one whose graph was changed, and one without a manifest."""
    write_package(tmp_path, "good", version=2)
    (write_package(tmp_path, "changed") / "model.onnx").write_bytes(b"another graph")
    (write_package(tmp_path, "bare") / "model.json").unlink()
    return tmp_path


def test_good_packages_end_with_status_0(
    tiny_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which processes of pytest-xdist have
    models(tiny_models)
    shown = capsys.readouterr().out
    for word in ("tiny", "colour-meter", "fp32", "ready"):
        assert word in shown
    heading, _, row, engine = shown.splitlines()
    assert (heading, row) == (heading.rstrip(), row.rstrip())
    assert len(row) <= 80
    assert re.match("tiny/1: (onnxruntime|OpenVINO) ", engine, re.IGNORECASE)  # whichever is faster


def test_bad_package_is_named_with_its_reason_and_ends_with_status_1(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        models(mixed, as_json=True)
    assert caught.value.exit_code == 1
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["models"]}
    assert (entries["good"]["state"], entries["good"]["version"], entries["good"]["labels"]) == (
        "ready",
        2,
        3,
    )
    assert entries["good"]["reason"] is None
    assert "SHA-256" in entries["changed"]["reason"]
    assert "model.json" in entries["bare"]["reason"]
    assert {entries[name]["state"] for name in ("changed", "bare")} == {"refused"}


def test_bad_package_is_in_the_table_too(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        models(mixed)
    assert capsys.readouterr().out.count("refused") == 2


def test_taught_packages_are_verified_against_their_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_package(tmp_path, "colours", model=TinyModel(features=True))
    write_head(tmp_path, base, "hues")
    write_head(tmp_path, write_package(tmp_path, "plain"), "lost")
    with pytest.raises(typer.Exit):
        models(tmp_path, as_json=True)
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["models"]}
    assert entries["hues"]["state"] == "ready"
    assert entries["hues"]["base"] == {
        "name": "colours",
        "version": 1,
        "sha256": entries["colours"]["sha256"],
    }
    assert (entries["hues"]["labels"], entries["hues"]["runs_on"]) == (2, "its base colours/1")
    assert entries["lost"]["reason"].startswith("its base plain/1 has no output `features`")

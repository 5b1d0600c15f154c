"""`blvnet doctor`: what it reports, and what it says about broken installations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.checks.diagnosis import Finding, Severity, diagnose
from service.commands import doctor
from tests.service.test_cli import blvnet, hide


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The worst finding of each check in a document."""
    order = list(Severity)
    rows = sorted(json.loads(done.stdout)["findings"], key=lambda row: order.index(row["severity"]))
    return {row["check"]: row for row in rows}


def test_good_installation_passes_every_check(tiny_models: Path) -> None:
    done = blvnet("doctor", "--models", tiny_models)
    assert done.returncode == 0, done.stdout
    checks = (
        "python",
        "settings",
        "engine",
        "codecs",
        "cores",
        "sandbox",
        "memory and disk",
        "cache",
        "models",
    )
    lines = done.stdout.splitlines()
    for check in checks:
        assert any(f" {check}: " in line for line in lines), check
    assert "onnxruntime" in done.stdout
    assert "tiny/1" in done.stdout


def test_missing_engines_fail_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.checks.diagnosis.installed_providers", lambda: ())
    found = {finding.check: finding for finding in diagnose({})}
    assert found["engine"].severity is Severity.FAILED
    assert "[cpu]" in found["engine"].remedy


def test_engine_that_cannot_be_imported_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libfoo.so: no such file')")
    hide(tmp_path, "openvino")
    done = blvnet("doctor", "--json", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[3]}")
    row = findings(done)["engine"]
    assert (done.returncode, row["severity"]) == (1, "failed")
    assert "libfoo.so" in done.stdout


def test_settings_and_models_that_do_not_work_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.checks.diagnosis.CHECKS", ())
    monkeypatch.setenv("BLVNET_MAX_BATCH", "many")
    assert [(item.check, item.severity) for item in diagnose({})][1:] == [("settings", Severity.FAILED)]
    monkeypatch.delenv("BLVNET_MAX_BATCH")
    misspelt = [*diagnose({"BLVNET_MAX_BATCHES": "1"})][1]
    assert (misspelt.severity, "BLVNET_MAX_BATCHES" in misspelt.detail) == (Severity.WARNING, True)
    monkeypatch.undo()
    monkeypatch.setattr("service.checks.diagnosis.installed_providers", lambda: ())
    found = {item.check: item for item in diagnose({}, tmp_path)}
    assert found["models"].severity is Severity.FAILED
    (tmp_path / "walk" / "1").mkdir(parents=True)
    found = {item.check: item for item in diagnose({}, tmp_path)}
    assert (found["models"].severity, "model.json" in found["models"].detail) == (Severity.FAILED, True)


def test_every_finding_that_is_not_ok_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.checks.diagnosis.usable_cores", lambda: 1)
    monkeypatch.setattr("service.workers.sandbox.LANDLOCK", False)
    monkeypatch.setattr("service.checks.diagnosis.misfits", lambda *_: ["too little memory: add some"])
    monkeypatch.setattr("service.checks.diagnosis.installed_providers", lambda: ())
    monkeypatch.setenv("BLVNET_CACHE_DIR", "/proc/nowhere")
    found = [item for item in diagnose({}) if item.severity is not Severity.OK]
    assert {item.check for item in found} == {"engine", "cores", "sandbox", "memory and disk", "cache"}
    assert all(item.remedy for item in found)
    doctor._print(Finding("cache", Severity.WARNING, "full", "empty it"))
    assert capsys.readouterr().out == "warning cache: full\n        -> empty it\n"

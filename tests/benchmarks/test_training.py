"""The benchmark of training steps, with networks that take milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from benchmarks.training import command, step
from model_export.training.config import Amp

AUTHORS = """
from torch import nn

class bLVNet_TAM(nn.Module):
    def __init__(self, parameters):
        super().__init__()
        print(parameters)
        self.fc = nn.Linear(parameters["groups"] * 3, parameters["num_classes"])

    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A folder in the layout of the authors' code."""
    (tmp_path / "core" / "models").mkdir(parents=True)
    (tmp_path / "core" / "models" / "blvnet_tam.py").write_text(AUTHORS)
    return tmp_path


@pytest.mark.parametrize("theirs", [False, True])
def test_steps_print_one_document(
    theirs: bool, authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "ARCHITECTURE", "blvnet-tam-mini-shared")
    monkeypatch.setattr(step, "SIZE", 64)
    step.main(batch=2, steps=2, threads=1, amp=Amp.BF16, folder=authors if theirs else None)
    found = json.loads(capsys.readouterr().out)
    assert len(found["wall_s"]) == len(found["cpu_s"]) == 2
    assert found["peak_mb"] > 50


def test_networks_alternate_and_the_table_compares_them(
    authors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(options: list[str]) -> dict[str, object]:
        asked.append("theirs" if "--folder" in options else options[options.index("--amp") + 1])
        slow = {"theirs": 4.0, "off": 2.0, "bf16": 1.0}[asked[-1]]
        return {"wall_s": [slow], "cpu_s": [slow], "peak_mb": 1000 * slow}

    monkeypatch.setattr(command, "measure", measure)
    command.main(reference=authors, out=authors / "results")
    assert asked == ["theirs", "off", "bf16"] * 2
    text = (authors / "results" / "training.md").read_text()
    assert "| this repository, float32 | 2.00 | 2.00 | 2000 |" in text
    assert "bfloat16, takes 0.25 of the CPU time of IBM/bLVNet-TAM and 0.25 of the memory." in text


def test_folder_without_the_authors_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="is not a clone of"):
        command.main(reference=tmp_path, out=tmp_path)

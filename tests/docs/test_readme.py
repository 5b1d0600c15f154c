"""Runs the README's commands and compares their output with the text."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.packages.folders import bundled_models
from tests.support.observability import ROOT
from tests.support.server import RunningServer, running_server

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# One or two videos per label and split suffice to run every command.
SMALLER = {
    "--clips 600": "--clips 88 --split train=2,val=1,test=1",
    "--data videos": "--data data/motions",
    "--recipe fine-tune": "--recipe fine-tune --epochs 1 --warmup-epochs 0",
}
TRAINING = ("synth", "train", "evaluate", "export")
SCORE_TOLERANCE = 0.02  # rounding differs between CPUs
CHANGING = ("timing_ms", "request_id")


def blocks(language: str) -> list[str]:
    """All code blocks of a language, in order."""
    return [text for kind, text in BLOCKS if kind == language]


def commands() -> list[str]:
    """All shell commands, in order, without comments."""
    return [line.partition(" #")[0].strip() for text in blocks("sh") for line in text.splitlines()]


def starting_with(*beginnings: str) -> list[str]:
    """The commands with one of these prefixes."""
    return [command for command in commands() if command.startswith(beginnings)]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """The equivalent of `make serve`: the bundled model on onnxruntime."""
    with running_server(bundled_models(), provider="cpu") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the files that the commands use."""
    for name in ("README.md", "examples", "service"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: str, folder: Path, url: str = "") -> str:
    """Run a command of the README with the test environment and server; return its output."""
    programs = f"{Path(sys.executable).parent}/"
    command = command.replace(".venv/bin/", programs).replace("http://127.0.0.1:8000", url)
    command = command.replace("127.0.0.1:8000", url)
    words = shlex.split(command.replace("curl ", "curl --silent --show-error "))
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    """The reproducible part of an answer: everything but timings, and only the top label."""
    best = answer["predictions"][0]
    rounded = best | {"score": pytest.approx(best["score"], abs=SCORE_TOLERANCE)}
    return {key: value for key, value in answer.items() if key not in CHANGING} | {"predictions": rounded}


def test_first_screen_shows_start_and_request() -> None:
    first_screen = TEXT.splitlines()[:50]
    assert "make serve" in first_screen
    assert [line for line in first_screen if line.startswith("curl -F file=@")]


def test_answer_matches_the_text(server: RunningServer, folder: Path) -> None:
    [shown] = blocks("json")
    answer = json.loads(run(starting_with("curl")[0], folder, server.url))
    assert lasting(answer) == lasting(json.loads(shown))
    assert answer.keys() == json.loads(shown).keys()


def test_text_file_gets_a_problem_document(server: RunningServer, folder: Path) -> None:
    problem = json.loads(run(starting_with("curl")[1], folder, server.url))
    assert (problem["status"], problem["code"]) == (415, "not_a_video")


@pytest.mark.parametrize("command", starting_with(".venv/bin/blvnet classify"))
def test_classify_command_gives_the_same_label(server: RunningServer, folder: Path, command: str) -> None:
    [shown] = blocks("json")
    assert json.loads(shown)["predictions"][0]["label"] in run(command, folder, server.url)


def test_timeline_output_matches_the_text(folder: Path) -> None:
    [shown] = [text for text in blocks("text") if text.lstrip().startswith("from")]
    [command] = starting_with(".venv/bin/blvnet timeline")
    assert segments(run(command, folder)) == segments(shown)


def segments(table: str) -> list[str]:
    """Times and label of each row."""
    return [line.rpartition(" ")[0].strip() for line in map(str.strip, table.splitlines()) if ":" in line]


def test_python_example_prints_labels(server: RunningServer, folder: Path) -> None:
    [code] = blocks("python")
    (folder / "example.py").write_text(code.replace("http://127.0.0.1:8000", server.url))
    output = run(f".venv/bin/{Path(sys.executable).name} example.py", folder)
    assert re.fullmatch(r"(?:[01]\.\d\d [A-Z].+\n){3}", output)


def test_training_commands_work_in_sequence(folder: Path) -> None:
    for command in starting_with(*(f".venv/bin/blvnet {name} " for name in TRAINING)):
        if "checkpoint.pth.tar" not in command:
            for shown, smaller in SMALLER.items():
                command = command.replace(shown, smaller)
            run(command, folder)
    [shown] = blocks("json")
    labelled = run(".venv/bin/blvnet classify examples/clip.mp4 --models models --model mine", folder)
    assert json.loads(shown)["predictions"][0]["label"] in labelled.splitlines()[1]


@pytest.mark.parametrize("command", starting_with("make"))
def test_make_command_is_valid(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_figures_are_those_of_the_benchmarks() -> None:
    results = ROOT / "benchmarks/results"
    accuracy = json.loads((results / "accuracy.json").read_text())
    timing = json.loads((results / "stages.json").read_text())
    soak = json.loads((results / "soak.json").read_text())["answers"]["good"]["answers"]
    p50, int8 = timing["p50_ms"], accuracy["int8"]
    figures = dict(
        re.findall(r"^\| (.+?) \| (.+?) \|", TEXT.split("\n## Accuracy and speed\n")[1], re.MULTILINE)
    )
    assert list(figures)[1].startswith(f"{accuracy['clips']:,} fresh clips ")
    assert list(figures.values())[1:9] == [
        with_interval(accuracy["top1"], accuracy["top1_interval"]),
        with_interval(int8["top1"], int8["top1_interval"]),
        f"{int8['agreement']:.1%}".replace("%", " %"),
        f"{accuracy['reversed']['opposite_label']:.1%}".replace("%", " %"),
        f"{p50['total']:.0f} ms",
        f"{p50['decode']:.0f} ms and {p50['inference']:.0f} ms",
        f"{timing['start_s']['ready_s']:.1f} s",
        f"{soak['200']:,} of {sum(soak.values()):,}",
    ]


def with_interval(share: float, ends: tuple[float, float]) -> str:
    """A share and its interval as written in the table."""
    low, high = (f"{100 * end:.1f}" for end in ends)
    return f"{100 * share:.1f} % ({low} to {high})"


def test_every_command_is_tested() -> None:
    assert set(commands()) == set(starting_with("make", "curl", ".venv/bin/blvnet"))

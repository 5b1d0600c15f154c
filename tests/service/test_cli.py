"""The command line as a process: what it prints where, how it exits, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from service.cli import ENTRY_POINT_GROUP, OWN_COMMANDS, summary
from tests.server import server_environment


def blvnet(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `blvnet` in a process of its own."""
    command = [str(Path(sys.executable).with_name("blvnet")), *map(str, arguments)]
    environment = server_environment({}) | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_lists_every_command_with_a_line_each() -> None:
    done = blvnet("--help", COLUMNS="200")
    assert done.returncode == 0
    names = {*OWN_COMMANDS, *(item.name for item in entry_points(group=ENTRY_POINT_GROUP))}
    assert {name for name in names if f" {name} " in done.stdout} == names
    assert "Serve the models over HTTP" in done.stdout


def test_version_is_printed() -> None:
    done = blvnet("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "blvnet-serve")


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_every_command_has_help_of_its_own(name: str) -> None:
    done = blvnet(name, "--help", COLUMNS="200")
    assert done.returncode == 0
    assert summary(OWN_COMMANDS[name]) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clasify", "x.mp4"], "Did you mean 'classify'?"),
        (["classify"], "Missing argument"),
        (["classify", "--loud", "x.mp4"], "No such option: --loud"),
        (["classify", "--top-k", "0", "x.mp4"], "--top-k"),
        (["classify", "--crops", "4", "x.mp4"], "--crops must be one of 1, 3, 5, 10"),
        (["classify", "--server", "http://x", "--models", ".", "x.mp4"], "exclude each other"),
        (["serve", "--max-batch", "many"], "BLVNET_MAX_BATCH (--max-batch) is 'many'"),
        (["models", "--colour"], "No such option: --colour"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = blvnet(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("blvnet: ")
    assert done.stderr.count("\n") == 1


def test_failure_is_one_line_and_status_1() -> None:
    done = blvnet("models", "--models", "/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "blvnet: /nonexistent: there is no such folder of model packages\n"


def test_debug_shows_where_it_failed() -> None:
    done = blvnet("--debug", "models", "--models", "/nonexistent")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "PackageError" in done.stderr


def add_command(folder: Path, name: str, code: str) -> None:
    """Install a distribution in `folder` that brings the command `name`, the function `run` of `code`."""
    metadata = folder / f"{name}_command-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-command\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {name}_command:run\n")
    (folder / f"{name}_command.py").write_text(code)


def hide(folder: Path, module: str) -> None:
    """Make `module` look as if it was not installed, for processes that have `folder` in their path."""
    (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError('no module', name={module!r})")


def test_command_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    hide(tmp_path, "torch")
    add_command(tmp_path, "learn", "import torch\ndef run() -> None:\n    'Learn.'\n")
    done = blvnet("learn", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "blvnet: torch is not installed; pip install 'blvnet-serve[train]'\n"


def test_command_that_misses_its_extra_half_way_says_so_too(tmp_path: Path) -> None:
    hide(tmp_path, "cv2")
    add_command(tmp_path, "draw", "def run() -> None:\n    'Draw.'\n    import cv2.data\n")
    done = blvnet("draw", PYTHONPATH=str(tmp_path))
    assert (done.returncode, "blvnet-serve[train]" in done.stderr) == (1, True)


def test_missing_module_that_no_extra_has_is_a_defect_and_shown_as_one(tmp_path: Path) -> None:
    add_command(tmp_path, "broken", "import no_such_module\ndef run() -> None:\n    'Break.'\n")
    done = blvnet("broken", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_listing_a_command_does_not_run_its_module(tmp_path: Path) -> None:
    code = "print('I am run')\ndef run(times: int) -> None:\n    'Make noise.'\n    print('boom ' * times)\n"
    add_command(tmp_path, "noisy", code)
    listed = blvnet("--help", PYTHONPATH=str(tmp_path), COLUMNS="200")
    assert "Make noise." in listed.stdout
    assert "I am run" not in listed.stdout
    called = blvnet("noisy", "2", PYTHONPATH=str(tmp_path))
    assert called.stdout == "I am run\nboom boom \n"


def test_inference_engine_does_not_report_to_its_maker(tmp_path: Path, tiny_models: Path) -> None:
    assert blvnet("models", "--models", tiny_models, TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_is_no_defect(tiny_models: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("blvnet")),
        "models",
        "--models",
        str(tiny_models),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""

"""The command line as a process: what it prints where, its exit status, and what it does not load."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from service.cli import ENTRY_POINT_GROUP, OWN_COMMANDS, summary
from service.commands.serve import GROUPS
from service.installation import install_command
from service.settings import Settings
from tests.support.server import server_environment


def blvnet(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `blvnet` in a separate process."""
    command = [str(Path(sys.executable).with_name("blvnet")), *map(str, arguments)]
    environment = server_environment({}) | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_lists_every_command_with_its_summary() -> None:
    done = blvnet("--help", COLUMNS="80")
    assert done.returncode == 0
    names = {*OWN_COMMANDS, *(item.name for item in entry_points(group=ENTRY_POINT_GROUP))}
    assert {name for name in names if f" {name} " in done.stdout} == names
    assert "Serve models over HTTP" in done.stdout
    assert "engine that would run them." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_program_without_a_command_prints_its_help() -> None:
    done = blvnet(COLUMNS="80")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == blvnet("--help", COLUMNS="80").stdout


def test_version_is_printed() -> None:
    done = blvnet("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "blvnet-serve")


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_every_command_has_help_of_its_own(name: str) -> None:
    done = blvnet(name, "--help", COLUMNS="80")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert summary(OWN_COMMANDS[name]) in words
    assert f"Example: blvnet {name} " in done.stdout  # on one line
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    assert re.findall(r"[<{][\w\[\] |]+[>}]", words) == []  # types as Python names them


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("classify", ["Usage: blvnet classify [OPTIONS] CLIP...", "  CLIP  Video files", "  --top-k K "]),
        ("bench", ["  PACKAGE  Folder ", "  --rounds NUMBER "]),
        (
            "synth",
            [
                "[OPTIONS] OUT\n",
                "  --task simple|motions|events|appearance|hands|air-drawing\n",
                "  --only TEXT ",
            ],
        ),
        ("evaluate", ["  --checkpoint PATH ", "  --data DIR ", "  --top-k NUMBER "]),
    ],
)
def test_help_names_values_in_words(name: str, shown: list[str]) -> None:
    text = blvnet(name, "--help", COLUMNS="80").stdout
    assert [part for part in shown if part not in text] == []


@pytest.mark.parametrize("command", entry_points(group=ENTRY_POINT_GROUP), ids=lambda item: item.name)
def test_help_of_every_training_command_has_an_example(command: EntryPoint) -> None:
    module, _, function = command.value.partition(":")
    path = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    found = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == function]
    assert isinstance(found[0], ast.FunctionDef)
    [example] = re.findall("^Example: .*$", ast.get_docstring(found[0]) or "", re.MULTILINE)
    assert example.startswith(f"Example: blvnet {command.name} ")
    assert len(example) <= 76  # one line of the help


def test_help_of_serve_has_every_setting_in_a_group() -> None:
    sections = re.split(r"^(\w.*):$", blvnet("serve", "--help", COLUMNS="80").stdout, flags=re.MULTILINE)
    titles, texts = sections[1::2], sections[2::2]
    assert titles == [*GROUPS.values(), "Options"]
    assert "--metrics-port NUMBER" in texts[titles.index("Network and keys")]
    shown = {word for text in texts[:-1] for word in re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)}
    assert shown == {f"--{name.replace('_', '-')}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clasify", "x.mp4"], "Did you mean 'classify'?"),
        (["classify"], "Missing argument"),
        (["classify", "--loud", "x.mp4"], "No such option: --loud"),
        (["classify", "--top-k", "0", "x.mp4"], "--top-k"),
        (["classify", "--crops", "4", "x.mp4"], "crops must be one of 1, 3, 5, 10"),
        (["classify", "--server", "http://x", "--models", ".", "x.mp4"], "cannot be combined"),
        (["classify", "--server", "ftp://x", __file__], "'ftp://x' is not a valid address"),
        (["timeline", "--server", "localhost:99999", __file__], "'localhost:99999' is not a valid address"),
        (["classify", "--server", "x", "--api-key", "\n", __file__], "API key"),
        (["classify", "--to-k", "3", "x.mp4"], "Possible options: --top-k"),
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


@pytest.mark.parametrize("command", ["classify", "timeline"])
def test_models_that_cannot_be_loaded_are_one_line_in_commands_that_load_them(command: str) -> None:
    done = blvnet(command, "x.mp4", "--models", "/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "blvnet: /nonexistent: there is no such folder of model packages\n"


def test_folder_that_is_missing_for_a_file_is_named(tmp_path: Path) -> None:
    out = tmp_path / "none" / "labels.csv"
    done = blvnet("classify", "x.mp4", "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"blvnet: {out}: there is no folder {out.parent}; make it first\n"


def test_debug_shows_where_it_failed() -> None:
    done = blvnet("--debug", "models", "--models", "/nonexistent")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "PackageError" in done.stderr


def add_command(folder: Path, name: str, code: str) -> None:
    """Install a distribution in `folder` that provides the command `name`, the function `run` of `code`."""
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
    assert done.stderr == f"blvnet: torch is not installed; run: {install_command('train')}\n"


def test_command_that_misses_its_extra_half_way_says_so_too(tmp_path: Path) -> None:
    hide(tmp_path, "cv2")
    add_command(tmp_path, "draw", "def run() -> None:\n    'Draw.'\n    import cv2.data\n")
    done = blvnet("draw", PYTHONPATH=str(tmp_path))
    assert (done.returncode, "[train]" in done.stderr) == (1, True)


def test_missing_module_of_no_extra_is_shown_as_a_defect(tmp_path: Path) -> None:
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


def test_interruption_is_one_line_and_runs_no_destructors(tmp_path: Path) -> None:
    """Those of an engine abort the process while a model loads in another thread."""
    code = "import atexit, os\natexit.register(os.abort)\n"
    code += "def run() -> None:\n    'Wait.'\n    raise KeyboardInterrupt\n"
    add_command(tmp_path, "wait", code)
    done = blvnet("wait", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "blvnet: interrupted\n")


def test_inference_engine_sends_no_telemetry(tmp_path: Path, tiny_models: Path) -> None:
    assert blvnet("models", "--models", tiny_models, TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_closed_output_is_not_an_error(tiny_models: Path) -> None:
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


def test_hint_for_an_extra_is_a_command_that_pip_understands() -> None:
    program, *arguments = shlex.split(install_command("train"))
    command = [program, *arguments, "--dry-run", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("classify", "--help"), ("models", "--json")])
def test_full_disk_is_one_line_and_no_traceback(arguments: tuple[str, ...], tiny_models: Path) -> None:
    command = [str(Path(sys.executable).with_name("blvnet")), *arguments]
    environment = server_environment({"MODELS": tiny_models})
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert (done.returncode, done.stderr) == (
        1,
        "blvnet: output cannot be written: No space left on device\n",
    )


def test_full_standard_error_leaves_the_exit_status() -> None:
    command = [str(Path(sys.executable).with_name("blvnet")), "nonesuch"]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 2


def test_user_without_a_home_and_an_entry_can_use_it(
    tiny_models: Path, tmp_path: Path, red_clip: bytes
) -> None:
    namespace = ["unshare", "--user", "--map-user=54321"]
    (clip := tmp_path / "red.mp4").write_bytes(red_clip)
    command = [str(Path(sys.executable).with_name("blvnet")), "classify", str(clip), "--top-k", "1"]
    done = subprocess.run(
        ["env", "-u", "HOME", "-u", "XDG_CACHE_HOME", *namespace, *command, "--models", str(tiny_models)],
        capture_output=True,
        text=True,
        check=False,
        env=server_environment({}),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "red" in done.stdout.splitlines()[1]


def completions(*words: str) -> list[str]:
    """The completions that bash offers for the last of these words."""
    variables = {
        "_BLVNET_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = blvnet(**variables)
    assert done.stderr == ""
    return done.stdout.split()


def test_shell_completes_commands_and_options() -> None:
    assert completions("blvnet", "cla") == ["classify"]
    assert completions("blvnet", "classify", "--js") == ["--json", "--jsonl"]
    assert completions("blvnet", "serve", "--metrics") == ["--metrics-port"]


def test_completion_script_is_valid_bash() -> None:
    script = blvnet("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    check = "complete -p blvnet"
    done = subprocess.run(["bash", "-c", f"{script}\n{check}"], capture_output=True, text=True, check=True)
    assert "_blvnet_completion" in done.stdout

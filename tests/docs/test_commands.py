"""Runs the commands of the documentation and the examples, with one server and one folder for all."""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.cli import Commands, load_command
from tests.support.browser import browser
from tests.support.documented import PAGES, Block, blocks, prepare, run
from tests.support.observability import ROOT
from tests.support.server import RunningServer, running_server
from tests.support.tools import need

EXAMPLES = ROOT / "examples"
# They have separate tests, which also compare the output.
ELSEWHERE = {ROOT / "README.md", EXAMPLES / "README.md"}
RUN = [page for page in PAGES if page not in ELSEWHERE]
ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the commands."""
    made = tmp_path_factory.mktemp("commands")
    prepare(made)
    return made


@pytest.fixture(scope="module")
def other_origin() -> Iterator[str]:
    """A web server for the examples."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(EXAMPLES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(folder: Path, other_origin: str) -> Iterator[RunningServer]:
    """The server that `make serve` starts, with jobs."""
    settings: dict[str, Any] = {
        "TEACH_DIR": folder / "taught", "JOBS_DIR": folder / "jobs", "CORS_ORIGINS": other_origin
    }  # fmt: skip
    with running_server(folder / "models", provider="cpu", **settings) as running:
        yield running


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_work(page: Path, folder: Path, server: RunningServer) -> None:
    for block in blocks(page):
        if block.reason is None and block.language in ("sh", "python"):
            run(block.text, block.language, folder, server)


def test_every_option_exists() -> None:
    for block in ALL:
        for command in block.commands:
            words = shlex.split(command, comments=True)
            for at, word in enumerate(words):
                if Path(word).name == "blvnet" and at + 1 < len(words):
                    assert unknown_options(words[at + 1 :]) == set(), command
                if word == "-m" and words[at - 1].endswith("python"):
                    assert importlib.util.find_spec(words[at + 1]) is not None, command


def unknown_options(words: list[str]) -> set[str]:
    """The options of a `blvnet` command line that the command does not have."""
    name, *rest = words
    command: Any = load_command(name, Commands().targets[name])
    if rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
    return {word.partition("=")[0] for word in rest if word.startswith("--")} - known


# The output of each command of examples/README.md, as a regular expression.
PRINTED = {
    "classify.py": r"examples/clip.mp4: Moving something from left to right \(100%\)\n",
    "folder.py": "",
    "subtitles.py": r"1\n00:00:00,000 --> 00:00:04,000\nMoving two things apart\n\n2\n00:00:04,000 --> .*",
    "teach.py": r"my-actions version 1: \d of 6 clips right\nnew.mp4: clap \(\d+%\)\n",
    "classify.mjs": r"examples/clip.mp4: Moving something from left to right \(100%\)\n",
    "classify.sh": r"(\{.*left to right.*\n){2}(\{\"window\".*\n){3}\{.*\n.*: status 415\n",
}


@pytest.mark.parametrize("name", PRINTED)
def test_example_prints_what_it_should(name: str, folder: Path, server: RunningServer) -> None:
    [command] = [line for line in runnable(EXAMPLES / "README.md") if f"examples/{name}" in line]
    printed = run(command, "sh", folder, server, CURL_HOME="/nonexistent")
    assert re.fullmatch(PRINTED[name], printed, re.DOTALL), printed


def runnable(page: Path) -> list[str]:
    """The commands of a page that need nothing special."""
    return [command for block in blocks(page) if block.reason is None for command in block.commands]


def test_installed_client_does_not_need_the_service(folder: Path, server: RunningServer) -> None:
    [command] = {command for block in ALL for command in block.commands if "./blvnet_client" in command}
    run(command, "sh", folder, server)
    code = (
        "import sys; sys.path.insert(0, 'site'); sys.modules['service'] = sys.modules['numpy'] = None\n"
        "import blvnet_client; print(blvnet_client.__file__)"
    )
    printed = run(f'python -I -c "{code}"', "sh", folder, server)
    assert printed == f"{folder}/site/blvnet_client/__init__.py\n"


def test_every_example_is_listed_and_tested() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".mjs", ".html", ".sh"}}
    listed = set(re.findall(r"^\| \[`(.+?)`\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert files == listed == {*PRINTED, "browser.html", "int8.sh", "gpu.sh"}
    assert len(runnable(EXAMPLES / "README.md")) == len(PRINTED)


def test_folder_example_continues_its_table(folder: Path, server: RunningServer) -> None:
    (folder / "some").mkdir()
    (folder / "some" / "bad.mp4").write_text("just words. " * 100)
    for number in range(2):
        (folder / "some" / f"{number}.mp4").symlink_to(EXAMPLES / "clip.mp4")
        run("python examples/folder.py 127.0.0.1:8000 some some.csv", "sh", folder, server)
    with (folder / "some.csv").open(newline="") as file:
        rows = {Path(row["video"]).name: row["label"] for row in csv.DictReader(file)}
        assert file.seek(0) == 0
        assert len(file.readlines()) == 4
    label = "Moving something from left to right"
    assert rows == {"bad.mp4": "", "0.mp4": label, "1.mp4": label}


def test_int8_example_makes_a_package_that_is_used(folder: Path, server: RunningServer) -> None:
    # A limit that this few videos can prove; the limit of the example needs a thousand.
    small = {"CLIPS": "66", "MAX_DROP": "20"}
    printed = run("sh examples/int8.sh small", "sh", folder, server, **small)
    assert re.search(r"mini-int8 .*\bint8\b", printed), printed
    assert "Moving something from left to right" in printed.rpartition("mini-int8")[2]


def test_page_of_another_origin_labels_a_clip(
    tmp_path: Path, server: RunningServer, other_origin: str
) -> None:
    need("chromium", package="chromium")
    with browser(tmp_path) as page:
        page.open(f"{other_origin}/browser.html?server={server.url}")
        page.choose_file("#video", EXAMPLES / "clip.mp4")
        page.wait_for("document.querySelectorAll('#labels li').length === 3")
        assert page.text("#labels").startswith("Moving something from left to right: 100.0 %")
        page.choose_file("#video", EXAMPLES / "README.md")
        page.wait_for("document.getElementById('status').textContent.includes('not a')")


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_script_has_valid_commands(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    commands = Block(script, "sh", script.read_text(), None).commands
    found = [
        words[words.index("blvnet") + 1 :]
        for line in commands
        if "blvnet" in (words := shlex.split(line, comments=True))
    ]
    assert [words for words in found if unknown_options(words)] == []


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_script_without_arguments_says_how_it_is_used(script: Path) -> None:
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert f"is missing. Use: sh examples/{script.name} " in done.stderr

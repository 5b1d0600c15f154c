"""`blvnet classify` on many files: folders, pipes, formats, interruptions and busy servers."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.errors import Overloaded
from service.http.problems import problem_response
from tests.service.test_cli import blvnet
from tests.support.http_servers import Received, Reply, answering
from tests.support.server import PATIENCE_S, RunningServer, server_environment
from tests.support.tiny_models import TinyModel, colour_clip, write_package

CLIPS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips, one of them in a subfolder, and files that are not videos."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "below").mkdir()
    (folder / "red.mp4").write_bytes(colour_clip((255, 0, 0)))
    (folder / "below" / "blue.webm").write_bytes(colour_clip((0, 0, 255)))
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden.mp4").write_text("no video")
    return folder


def labels(output: str) -> dict[str, str]:
    """Best label by file name."""
    lines = [json.loads(line) for line in output.splitlines()]
    return {Path(line["clip"]).name: line["predictions"][0]["label"] for line in lines}


def test_folders_patterns_and_duplicates_are_expanded(folder: Path, tiny_models: Path) -> None:
    wanted = {"red.mp4": "red", "blue.webm": "blue"}
    done = blvnet(
        "classify", folder, folder / "**/*.mp4", folder / "red.mp4", "--models", tiny_models, "--jsonl"
    )
    assert (done.returncode, labels(done.stdout)) == (0, wanted), done.stderr
    assert len(done.stdout.splitlines()) == 2
    for argument, message in (
        (folder / "*.avi", "no file matches"),
        (Path(__file__).parent, "no file in this"),
    ):
        refused = blvnet("classify", argument, "--models", tiny_models)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_folder_that_cannot_be_read_is_named(folder: Path, server: RunningServer, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    (tmp_path / "red.mp4").write_bytes((folder / "red.mp4").read_bytes())
    powers = "-dac_override,-dac_read_search"  # with them root reads every file
    command = ["setpriv", "--bounding-set", powers, "--inh-caps", powers] if os.geteuid() == 0 else []
    command += [str(Path(sys.executable).with_name("blvnet")), "classify", str(tmp_path)]
    done = subprocess.run(
        [*command, "--server", server.url, "--csv"],
        capture_output=True, text=True, check=False, env=server_environment({}),
    )  # fmt: skip
    assert done.returncode == 1
    _, *rows = csv.reader(done.stdout.splitlines())
    assert {Path(row[0]).name: row[1] or row[2] for row in rows} == {
        "closed": f"bad_request: The file cannot be opened: {closed}: Permission denied",
        "red.mp4": "red",
    }


def test_standard_input_and_process_substitution(
    folder: Path, tiny_models: Path, server: RunningServer
) -> None:
    program = Path(sys.executable).with_name("blvnet")
    for source in (f"--models {tiny_models}", f"--server {server.url.removeprefix('http://')}"):
        script = (
            f"cat {folder}/red.mp4 | {program} classify - <(cat {folder}/below/blue.webm) {source} --jsonl"
        )
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=True, env=server_environment({})
        )
        assert list(labels(done.stdout).values()) == ["red", "blue"]


def test_csv_has_a_row_for_each_file(folder: Path, server: RunningServer) -> None:
    done = blvnet("classify", folder, folder / "notes.txt", "--server", server.url, "--csv", "--top-k", 2)
    header, *rows = csv.reader(done.stdout.splitlines())
    assert header == ["clip", "error", "label1", "score1", "label2", "score2"]
    assert [(Path(row[0]).name, *row[1:3]) for row in rows[:2]] == [
        ("blue.webm", "", "blue"),
        ("red.mp4", "", "red"),
    ]
    assert rows[2][1].startswith("not_a_video: ")
    assert {len(row) for row in rows} == {len(header)}
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["results.jsonl", "results.csv"])
def test_file_of_results_is_continued(folder: Path, server: RunningServer, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    command = ["classify", folder, folder / "notes.txt", "--server", server.url, "--out", out]
    first = blvnet(*command)
    assert (first.returncode, first.stdout) == (1, "")
    assert "not_a_video" in first.stderr
    complete = out.read_bytes()
    cut = complete[: complete.rstrip(b"\n").rfind(b"\n") + 10]  # as a crash leaves it
    out.write_bytes(cut)
    again = blvnet(*command)
    assert f"{out} has 1 results; 2 files are left" in again.stderr
    assert [line[:20] for line in out.read_bytes().splitlines()] == [
        line[:20] for line in complete.splitlines()
    ]
    other = blvnet(*command[:-1], tmp_path / "results.txt")
    assert (other.returncode, ".jsonl or .csv" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", "name,email\na,b\nc,d"),
        ("table.csv", "name,email"),
        ("document.jsonl", '{"a": 1}'),
        ("document.jsonl", '{"clip": "a.mp4"}\n{"a": 1}'),
    ],
)
def test_other_file_without_a_last_line_break_is_refused_and_unchanged(
    folder: Path, server: RunningServer, tmp_path: Path, name: str, content: str
) -> None:
    (out := tmp_path / name).write_text(content)
    done = blvnet("classify", folder, "--server", server.url, "--out", out)
    assert (done.returncode, "not a file of results" in done.stderr) == (2, True), done.stderr
    assert out.read_text() == content


def test_device_is_written_and_not_read(folder: Path, server: RunningServer) -> None:
    """Reading `/dev/full` would never end."""
    command = ["classify", folder, "--server", server.url, "--csv", "--out"]
    full = blvnet(*command, "/dev/full")
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr == "blvnet: output cannot be written: No space left on device\n"
    assert blvnet(*command, "/dev/null").returncode == 0


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes a noticeable time for each clip."""
    models = tmp_path_factory.mktemp("slow")
    write_package(models, model=TinyModel(work=700))
    return models


def test_ctrl_c_leaves_all_finished_lines(slow_models: Path, tmp_path: Path, red_clip: bytes) -> None:
    for number in range(CLIPS):
        (tmp_path / f"{number:03d}.mp4").write_bytes(red_clip)
    command = [str(Path(sys.executable).with_name("blvnet")), "classify", str(tmp_path), "--jsonl"]
    command += ["--models", str(slow_models)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=server_environment({})
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    lines = "".join(first) + rest
    found = labels(lines)  # every line is complete
    assert list(found) == [f"{number:03d}.mp4" for number in range(len(found))]
    assert 3 <= len(found) < CLIPS
    assert process.returncode == 130, errors
    assert f"interrupted; {len(found)} of {CLIPS} files are done" in errors
    assert "Traceback" not in errors


@contextmanager
def busy_once(url: str) -> Iterator[str]:
    """A server that refuses the first upload as overloaded and forwards the other requests to `url`."""
    refusals = [Overloaded("The queue is full (64 requests in progress).", 1.0)]

    def reply(request: Received) -> Reply:
        if request.method == "POST" and refusals:
            refused = problem_response(refusals.pop(), "id-1", request.path)
            return Reply(refused.status_code, refused.headers, bytes(refused.body))
        answer = httpx.request(
            request.method, url + request.path, content=request.body, verify=False, timeout=PATIENCE_S
        )
        return Reply(answer.status_code, {}, answer.content)

    with answering(reply) as busy_url:
        yield busy_url
    assert refusals == []


def test_busy_server_is_asked_again(server: RunningServer, folder: Path) -> None:
    with busy_once(server.url) as url:
        done = blvnet("classify", folder / "red.mp4", "--server", url, "--jsonl")
    assert (done.returncode, labels(done.stdout)) == (0, {"red.mp4": "red"}), done.stderr


def test_names_that_are_not_utf8_are_printed_as_they_are(
    tiny_models: Path, tmp_path: Path, red_clip: bytes
) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.mp4"
    with open(name, "wb") as file:  # noqa: PTH123 - pathlib takes no bytes
        file.write(red_clip)
    command: list[str | bytes] = [
        str(Path(sys.executable).with_name("blvnet")),
        "classify",
        name,
        "--models",
        str(tiny_models),
    ]
    options: list[list[str | bytes]] = [[], ["--jsonl"]]
    for more in options:
        done = subprocess.run([*command, *more], capture_output=True, check=True, env=server_environment({}))
        assert b"\xff.mp4" in done.stdout
        assert b"red" in done.stdout

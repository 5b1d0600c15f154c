"""`blvnet teach`: from folders of clips to a package that serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.commands.teach import teach
from service.errors import BlvnetError, ModelNotFound, PackageError
from service.offline import classify_files
from service.packages.folders import scan_packages
from service.packages.manifest import read_manifest
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig
from tests.service.test_cli import blvnet
from tests.support.clips import ClipRecipe, encode
from tests.support.server import server_environment
from tests.support.tiny_models import TinyModel, write_head, write_package
from tests.test_layering import TRAINING

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 200, 30)
COURSES = {"rising": (RED, BLUE), "falling": (BLUE, RED), "background": (GREEN, GREEN)}


def changing_clip(label: str, seed: int) -> bytes:
    """A clip of two colours; `rising` and `falling` show the same ones in the opposite order."""
    random = np.random.default_rng(seed)
    first, last = (
        np.clip(np.array(colour) + random.integers(-25, 25, 3), 0, 255) for colour in COURSES[label]
    )
    images = [np.full((32, 48, 3), first if number < 8 else last, np.uint8) for number in range(16)]
    return encode(images, ClipRecipe(width=48, height=32))


def write_clips(folder: Path, clips: int, seed: int = 0) -> Path:
    for index, label in enumerate(COURSES):
        (folder / label).mkdir(parents=True)
        for number in range(clips):
            clip = changing_clip(label, seed + 100 * index + number)
            (folder / label / f"{label}-{number}.mp4").write_bytes(clip)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` and `val`."""
    folder = tmp_path_factory.mktemp("data")
    write_clips(folder / "train", 5)
    write_clips(folder / "val", 2, seed=1000)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a base, and a model that cannot be one."""
    write_package(tmp_path / "models", "colours", model=TinyModel(features=True))
    write_package(tmp_path / "models", "bare")
    return tmp_path / "models"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A copy of the clips to change."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def taught(capsys: pytest.CaptureFixture[str], data: Path, name: str, **options: Any) -> dict[str, Any]:
    teach(data, name, **options | {"as_json": True})
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_taught_package_labels_new_clips(
    data: Path, models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    document = taught(capsys, data, "moves", models=models)
    assert document["labels"] == ["background", "falling", "rising"]
    assert document["base"]["name"] == "colours"
    assert document["report"]["validation"]["accuracy"]["top1"] == 1.0
    assert document["report"]["labels"] == dict.fromkeys(document["labels"], 5)
    folder = Path(document["package"])
    assert folder == models / "moves" / "1"
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "head.npz", "model.json"]
    assert read_manifest(folder).report == document["report"]
    assert "# moves 1" in (folder / "MODEL_CARD.md").read_text()
    for label in COURSES:
        clip = tmp_path / f"{label}.mp4"
        clip.write_bytes(changing_clip(label, 5000))
        [(_, answer)] = classify_files(CoreConfig(models=models), [clip], Query("moves"))
        assert isinstance(answer, Classification)
        assert answer.predictions[0].label == label


def test_teaching_again_makes_the_next_version(
    data: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = taught(capsys, data / "train", "moves", models=models)
    second = taught(capsys, data / "train", "moves", models=models, mirror=True)
    assert (first["version"], second["version"]) == (1, 2)
    assert first["report"]["validation"] is None
    assert 2 * first["report"]["views"] == second["report"]["views"]
    assert read_manifest(Path(second["package"])).mirror == (0, 1, 2)


def test_the_report_for_people_has_the_same_figures(
    data: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teach(data, "moves", base="colours", models=models, out=tmp_path / "out")
    shown = capsys.readouterr()
    report = read_manifest(tmp_path / "out" / "moves" / "1").report
    assert f"cross-validated top-1: {100 * report['accuracy']['top1']:.1f} %" in shown.out
    assert "On clips that were kept apart: 100.0 % (6 of 6 clips" in shown.out
    assert "3 rising" in shown.out
    assert f"blvnet serve --models {tmp_path / 'out'}" in shown.out
    assert "read 15 of 15 clips" in shown.err


def test_clips_that_cannot_be_read_are_named_and_left_out(
    copy: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "train" / "rising" / "rising-0.mp4").write_text("not a video")
    (copy / "train" / "rising" / "notes.txt").write_text("ignored")
    document = taught(capsys, copy, "moves", models=models)
    assert document["report"]["labels"]["rising"] == 4
    [left_out] = document["left_out"]
    assert left_out["clip"] == "rising/rising-0.mp4"
    assert left_out["reason"].startswith("not_a_video: ")
    for number in range(1, 4):
        (copy / "train" / "rising" / f"rising-{number}.mp4").write_text("not a video")
    with pytest.raises(BlvnetError, match="at least 2 clips; add clips of 'rising'"):
        teach(copy, "moves", models=models)


def test_groups_are_left_out_as_a_whole(
    data: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"train/{label}/{label}-{number}.mp4,{'ab'[number % 2]}" for label in COURSES for number in range(5)
    ]
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["clip,group", *rows]))
    report = taught(capsys, data, "moves", models=models, groups=groups)["report"]
    assert (report["groups"], report["folds"]) == (2, 2)
    groups.write_text("\n".join(rows[1:]))
    with pytest.raises(BlvnetError, match=r"no group for 1 of 15 clips: .*-0\.mp4"):
        teach(data, "moves", models=models, groups=groups)
    groups.write_text("only one column")
    with pytest.raises(BlvnetError, match="a file and a group, separated by a comma"):
        teach(data, "moves", models=models, groups=groups)


def test_bases_that_cannot_serve_as_one_are_refused_by_name_before_a_clip_is_read(
    data: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(models, models / "colours" / "1", "hues")
    with pytest.raises(ModelNotFound, match=r"bare/1 has no output 'features'.*export it again"):
        teach(data, "moves", base="bare", models=models)
    with pytest.raises(ModelNotFound, match="hues is a taught model; teach on its base colours"):
        teach(data, "moves", base="hues", models=models)
    with pytest.raises(ModelNotFound, match="no model 'missing'"):
        teach(data, "moves", base="missing", models=models)
    with pytest.raises(PackageError, match="another name than its base"):
        teach(data, "colours", base="colours", models=models)
    assert not (models / "moves").exists()
    assert capsys.readouterr().err == ""


def remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def keep_one_clip(folder: Path) -> None:
    for clip in sorted(folder.iterdir())[1:]:
        clip.unlink()


def test_sets_that_cannot_be_learned_are_refused_before_a_clip_is_read(copy: Path, tmp_path: Path) -> None:
    train = copy / "train"

    def refused(complaint: str) -> None:
        # A folder without models would be the next error.
        with pytest.raises(BlvnetError, match=complaint):
            teach(train, "moves", models=tmp_path / "missing")

    keep_one_clip(train / "rising")
    refused("each label needs at least 2 clips; add clips of 'rising'")
    remove(train / "rising")
    shutil.copytree(train / "falling", train / "Falling ")
    refused("'Falling ' and 'falling' differ only by case or spaces")
    remove(train / "falling", train / "Falling ")
    refused("at least 2 labels are needed; only 'background' has clips")
    remove(train / "background")
    refused("there are no clips in it")
    remove(train)
    refused("there is no such folder of labels")


def test_labels_to_validate_on_must_be_taught(data: Path, copy: Path, models: Path) -> None:
    (copy / "val" / "rising").rename(copy / "val" / "jumping")
    with pytest.raises(BlvnetError, match="labels that are not taught: 'jumping'"):
        teach(data / "train", "moves", models=models, val=copy / "val")


def run_teach(data: Path, models: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `blvnet teach` in a process that runs the line `before` first, and prints its modules at exit."""
    script = f"""
import atexit, os, signal, sys
import service.packages.taught
from service.cli import main
{before}
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()"""
    options = ("teach", data, "--name", "moves", "--models", models, "--json")
    command = [sys.executable, "-c", script, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=server_environment({}))


def test_a_killed_run_leaves_nothing_and_the_next_one_works_without_torch(data: Path, models: Path) -> None:
    kill = "service.packages.taught.model_card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    assert run_teach(data, models, kill).returncode == -signal.SIGKILL  # the head is written, the rest is not
    (left,) = (models / "moves").iterdir()
    assert left.name.startswith(".")
    assert [package.name for package in scan_packages(models).packages] == ["bare", "colours"]
    done = run_teach(data, models)
    assert json.loads(done.stdout)["version"] == 1
    assert [path.name for path in (models / "moves").iterdir()] == ["1"]
    loaded = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert "numpy" in loaded
    assert not loaded & TRAINING


def test_errors_of_the_command_line_are_one_line(data: Path, models: Path, tmp_path: Path) -> None:
    done = blvnet("teach", str(data), "--name", "a b", "--models", str(models))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().splitlines() == [
        "blvnet: the name of a model must be letters, digits, '.', '_' and '-'; it is 'a b'"
    ]
    done = blvnet("teach", str(tmp_path / "missing"), "--name", "moves")
    assert done.returncode == 2
    assert "there is no such folder of labels" in done.stderr


def test_a_full_disk_ends_the_command_in_one_line_and_leaves_nothing(
    data: Path, models: Path, tmp_path: Path
) -> None:
    """The package is written to a file system of one page; the part that fits is removed."""
    out = tmp_path / "small"
    out.mkdir()
    program = Path(sys.executable).with_name("blvnet")
    in_namespace = 'mount -t tmpfs -o size=4k tmpfs "$0" && "$@"; status=$?; ls -A "$0"; exit $status'
    command = ["unshare", "-m", "sh", "-c", in_namespace, out, program]
    if os.geteuid():
        command[1:1] = ["-r"]
    options = ("teach", data, "--name", "moves", "--models", models, "--out", out, "--json")
    done = subprocess.run(
        [*map(str, command), *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        env=server_environment({}),
    )
    assert (done.returncode, done.stdout) == (1, "")
    last_line = done.stderr.splitlines()[-1]
    assert last_line.endswith("moves: the package cannot be written (No space left on device)")
    assert "Traceback" not in done.stderr

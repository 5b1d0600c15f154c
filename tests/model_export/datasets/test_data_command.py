"""`blvnet data check` finds every problem of a data set in one reading."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from model_export.commands.data import data
from tests.model_export.command import blvnet
from tests.model_export.datasets import layouts
from tests.support.clips import numbered_clip
from tests.support.observability import ROOT

app = typer.Typer()
app.command()(data)


def check(dataset: str, folder: Path) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["check", str(folder), "--dataset", dataset])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labels, one training and one validation video of each, all different."""
    for index, name in enumerate(("train/a/1", "train/b/1", "val/a/1", "val/b/1")):
        layouts.write(tmp_path / f"{name}.mp4", numbered_clip(frames=8 + index))
    return tmp_path


def test_sound_data_set_has_no_problems(folder: Path) -> None:
    assert check("folder", folder) == (0, ["2 train, 2 val videos, 2 labels, 0 problems"])


def test_every_problem_is_reported_at_once(folder: Path) -> None:
    (folder / "val/b/1.mp4").unlink()
    (folder / "train/b/1.mp4").write_text("no video")
    (folder / "val/a/2.mp4").write_bytes((folder / "train/a/1.mp4").read_bytes())
    status, lines = check("folder", folder)
    assert status == 1
    assert lines == [
        f"train: {folder}/train/b/1.mp4 cannot be read (NotAVideo: {lines[0].partition('NotAVideo: ')[2]}",
        "val: no video of 'b'",
        f"the same video is there twice: {folder}/train/a/1.mp4 and {folder}/val/a/2.mp4",
        "2 train, 2 val videos, 2 labels, 3 problems",
    ]


def test_missing_videos_and_splits_are_problems(tmp_path: Path) -> None:
    root = layouts.kinetics(tmp_path)
    next(root.glob("train/*/*.mp4")).unlink()
    (root / "val.csv").unlink()
    status, lines = check("k400", root)
    assert status == 1
    assert lines[0].startswith("val: ")
    assert "has no val.csv" in lines[0]
    assert lines[1] == "train: 1 annotated videos are missing"


def test_command_is_an_entry_point() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "blvnet.commands"
    ]
    assert entries["data"] == "model_export.commands.data:data"


def test_test_split_that_validates_is_read_once(tmp_path: Path) -> None:
    root = layouts.ucf101(tmp_path, (1, 1))
    for index, path in enumerate(sorted(root.rglob("*.avi"))):
        path.write_bytes(numbered_clip(frames=8 + index, container="avi", codec="mpeg4"))
    assert check("ucf101", root) == (0, ["2 train, 2 val videos, 2 labels, 0 problems"])


def test_group_in_two_splits_is_a_problem(folder: Path) -> None:
    rows = ("train/a/1.mp4,x", "train/b/1.mp4,y", "val/a/1.mp4,x", "val/b/1.mp4,z")
    (folder / "groups.csv").write_text("\n".join(rows))
    assert check("folder", folder) == (
        1,
        ["the group 'x' is in several splits: train, val", "2 train, 2 val videos, 2 labels, 1 problems"],
    )


def test_unknown_data_set_is_one_line(tmp_path: Path) -> None:
    result = blvnet("data", "check", tmp_path, "--dataset", "nope")
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("blvnet: unknown data set 'nope'; choose one of charades, ")
    assert result.stderr.count("\n") == 1

"""Folders without splits, and groups of videos."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from model_export.datasets import Example, Listing, read_listing
from model_export.datasets.auto_split import assign_splits
from model_export.datasets.groups import split_off_group
from service.errors import BlvnetError
from tests.model_export.datasets.test_folders import make_tree

SPLITS = ("train", "val", "test")


def listings(data: Path) -> dict[str, Listing]:
    return {split: read_listing("folder", data, split) for split in SPLITS}


def test_flat_folder_is_split_label_by_label_and_says_so(tmp_path: Path) -> None:
    data = make_tree(tmp_path, *(f"{label}/{index}.mp4" for label in "ab" for index in range(20)))
    splits = listings(data)
    for split, count in (("train", 14), ("val", 3), ("test", 3)):
        assert Counter(example.label for example in splits[split].examples) == {0: count, 1: count}
        assert splits[split].labels == ("a", "b")
    assert len({example.path for listing in splits.values() for example in listing.examples}) == 40
    note = f"{data} has no splits, so it is split by label: 28 train, 6 val, 6 test videos"
    assert splits["val"].notes == (note,)
    assert listings(data) == splits  # the same every time


def test_new_video_moves_few_others(tmp_path: Path) -> None:
    make_tree(tmp_path, *(f"a/{index}.mp4" for index in range(40)))
    before = {example.path for example in read_listing("folder", tmp_path, "train").examples}
    make_tree(tmp_path, "a/new.mp4")
    after = {example.path for example in read_listing("folder", tmp_path, "train").examples}
    assert len(before - after) <= 2


def test_groups_stay_together(tmp_path: Path) -> None:
    people = ("anna", "ben", "cem", "dora", "eva", "finn")
    files = [f"{label}/{person}{index}.mp4" for label in "ab" for person in people for index in range(4)]
    data = make_tree(tmp_path, *files)
    rows = [f"{name.partition('/')[2]},{name.partition('/')[0]},{name[2:-5]}" for name in files]
    (data / "groups.csv").write_text("file,label,group\n" + "\n".join(rows))
    splits = listings(data)
    groups = {split: {example.group for example in listing.examples} for split, listing in splits.items()}
    assert set().union(*groups.values()) == set(people)
    assert sum(map(len, groups.values())) == len(people)
    assert [len(groups[split]) for split in SPLITS] == [4, 1, 1]
    assert splits["train"].notes[0].endswith("split by group: 32 train, 8 val, 8 test videos")


def test_two_groups_train_and_validate() -> None:
    examples = [Example(Path(f"{index}"), 0, group="ab"[index > 5]) for index in range(8)]
    assert {split: len(chosen) for split, chosen in assign_splits(examples).items()} == {
        "train": 6,
        "val": 2,
        "test": 0,
    }


def test_too_few_videos_or_groups_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        BlvnetError, match=r"too few groups in groups.csv .*: put videos into train/ and val/"
    ):
        assign_splits([Example(Path("1"), 0, group="a"), Example(Path("2"), 0, group="a")])
    data = make_tree(tmp_path, "a/1.mp4", "a/2.mp4")
    assert len(read_listing("folder", data, "val").examples) == 1
    with pytest.raises(BlvnetError, match=r"too few videos or groups for a test split: use --split val"):
        read_listing("folder", data, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.mp4,x\n1.mp4,y\n", "line 2: 1.mp4 is in two groups, x and y"),
        ("1.mp4\n", "line 1: not file,group"),
        ("2.mp4,x\n", "groups.csv has no group for train/a/1.mp4"),
    ],
)
def test_wrong_groups_are_refused(tmp_path: Path, text: str, message: str) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4")
    (data / "groups.csv").write_text(text)
    with pytest.raises(BlvnetError, match=message):
        read_listing("folder", data, "train")


def test_groups_of_videos_outside_the_folder(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data, elsewhere):
        folder.mkdir()
    for name in ("1.mp4", "2.mp4"):
        (elsewhere / name).touch()
    (data / "train.txt").write_text(f"{elsewhere}/1.mp4 0\n{elsewhere}/2.mp4 1\n")
    (data / "groups.csv").write_text(f"{elsewhere}/1.mp4,anna\n2.mp4,ben\n")
    assert [example.group for example in read_listing("list", data, "train").examples] == ["anna", "ben"]
    (data / "groups.csv").write_text("2.mp4,ben\n")
    with pytest.raises(BlvnetError, match=f"groups.csv has no group for {elsewhere}/1.mp4"):
        read_listing("list", data, "train")


def test_groups_name_files_by_path_or_by_name(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "train/b/1.mp4", "train/b/2.mp4")
    (data / "groups.csv").write_text("train/b/1.mp4,first\n1.mp4,second\n2.mp4,third\n")
    groups = [example.group for example in read_listing("folder", data, "train").examples]
    assert groups == ["second", "first", "third"]


def test_group_is_split_off_to_validate_on(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "train/a/2.mp4", "train/a/3.mp4")
    listing = read_listing("folder", data, "train")
    with pytest.raises(BlvnetError, match=r"the videos have no groups: add a groups\.csv"):
        split_off_group(listing, "x")
    (data / "groups.csv").write_text("1.mp4,x\n2.mp4,y\n3.mp4,y\n")
    listing = read_listing("folder", data, "train")
    kept, held_out = split_off_group(listing, "y")
    assert [example.path.name for example in kept.examples] == ["1.mp4"]
    assert [example.path.name for example in held_out.examples] == ["2.mp4", "3.mp4"]
    with pytest.raises(BlvnetError, match="no training video is in the group 'z'; choose one of x, y"):
        split_off_group(listing, "z")
    with pytest.raises(BlvnetError, match="all training videos are in the group 'y'"):
        split_off_group(held_out, "y")

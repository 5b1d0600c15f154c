"""UCF101, HMDB51, Jester, Diving48 and Charades in their published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_export.datasets import Example, read_listing
from model_export.datasets.labels import read_labels
from service.errors import BlvnetError
from tests.model_export.datasets import layouts
from tests.model_export.datasets.layouts import CHARADES_LABELS, JESTER_LABELS, UCF_LABELS, write

MAKERS: dict[str, Callable[[Path], Path]] = {
    "ucf101": layouts.ucf101,
    "hmdb51": layouts.hmdb51,
    "jester": layouts.jester,
    "diving48": layouts.diving48,
    "charades": layouts.charades,
}


@pytest.mark.parametrize("dataset", MAKERS)
def test_missing_videos_are_counted(tmp_path: Path, dataset: str) -> None:
    data = MAKERS[dataset](tmp_path)
    whole = read_listing(dataset, data, "train")
    path = whole.examples[0].path
    path.rename(path.with_name(f".{path.name}"))
    listing = read_listing(dataset, data, "train")
    assert (listing.missing, listing.examples) == (1, whole.examples[1:])


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "diving48", "charades"])
def test_testing_videos_validate_too(tmp_path: Path, dataset: str) -> None:
    data = MAKERS[dataset](tmp_path)
    val, test = (read_listing(dataset, data, split) for split in ("val", "test"))
    train = {example.path for example in read_listing(dataset, data, "train").examples}
    assert val.examples == test.examples != ()
    assert not train & {example.path for example in val.examples}


def test_ucf101_has_labels_counted_from_1_groups_and_three_splits(tmp_path: Path) -> None:
    data = layouts.ucf101(tmp_path)
    listing = read_listing("ucf101", data, "train")
    assert listing.labels == UCF_LABELS
    assert listing.examples[2] == Example(
        data / "UCF-101/YoYo/v_YoYo_g01_c01.avi", 1, group="YoYo g01"
    )  # so that no split shares a group
    assert listing.symmetry.mirrored == (0, 1)
    write(data / "ucfTrainTestlist/trainlist03.txt", "YoYo/v_YoYo_g03_c01.avi 2\n")
    third = read_listing("ucf101-3", data, "train")
    assert [example.path.name for example in third.examples] == ["v_YoYo_g03_c01.avi"]
    assert read_listing("ucf101-1", data, "train") == listing


def test_hmdb51_marks_training_and_testing_videos_in_each_split(tmp_path: Path) -> None:
    data = layouts.hmdb51(tmp_path)
    first, second = (read_listing(name, data, "train") for name in ("hmdb51", "hmdb51-2"))
    assert first.labels == ("brush_hair", "wave")
    assert [example.path.name[:13] for example in first.examples[:2]] == ["brush_hair #0", "brush_hair #1"]
    assert [example.path.name[:13] for example in second.examples[:2]] == ["brush_hair #1", "brush_hair #2"]
    assert first.missing == 0  # a video marked 0 belongs to no split


def test_jester_gestures_turn_the_other_way_in_a_mirror(tmp_path: Path) -> None:
    listing = read_listing("jester", layouts.jester(tmp_path), "val")
    assert listing.labels == JESTER_LABELS
    assert listing.symmetry.mirrored == (1, 0, 3, 2, 4)
    assert listing.symmetry.reversed == (None,) * 5
    assert listing.examples[0].path == tmp_path / "20bn-jester-v1" / "11"


def test_diving48_labels_are_the_parts_of_a_dive(tmp_path: Path) -> None:
    data = layouts.diving48(tmp_path)
    listing = read_listing("diving48", data, "train")
    assert listing.labels == ("Back 15som 05Twis FREE", "Forward 15som NoTwis PIKE")
    assert [example.label for example in listing.examples] == [0, 1, 0, 1]
    (data / "Diving48_V2_train.json").rename(data / "Diving48_train.json")
    assert read_listing("diving48", data, "train") == listing


def test_charades_videos_have_several_labels(tmp_path: Path) -> None:
    listing = read_listing("charades", layouts.charades(tmp_path), "val")
    assert listing.multi_label
    assert listing.labels == CHARADES_LABELS
    assert [example.labels for example in listing.examples] == [(0, 2), (1,)]
    assert listing.missing == 0  # a video without an action is no example
    assert listing.unused_labels() == ()


@pytest.mark.parametrize(
    ("dataset", "file", "content", "message"),
    [
        ("ucf101", "ucfTrainTestlist/trainlist01.txt", "Jump/a.avi 1\n", "line 1: not LABEL/FILE"),
        (
            "hmdb51",
            "testTrainMulti_7030_splits/wave_test_split1.txt",
            "a.avi 3\n",
            "line 1: not FILE and 0, 1",
        ),
        ("jester", "jester-v1-train.csv", "1;Waving\n", "video 1 has the label 'Waving'"),
        ("diving48", "Diving48_vocab.json", "{}", "Diving48_vocab.json is not a list"),
        ("diving48", "Diving48_V2_train.json", "[", "cannot be read as JSON"),
        ("diving48", "Diving48_V2_train.json", "[" * 100_000, "cannot be read as JSON"),
        ("diving48", "Diving48_V2_train.json", '[{"vid_name": "a", "label": 2}]', "no label from 0 to 1"),
        (
            "charades",
            "Charades/Charades_v1_train.csv",
            "id,actions\nA,c900 0 1\n",
            "line 2: 'c900' is not in",
        ),
        ("charades", "Charades/Charades_v1_train.csv", "id\nA\n", "line 2: the columns id and actions"),
        (
            "charades",
            "Charades/Charades_v1_train.csv",
            'id,script,actions\nA,"two\nlines",c000 0 1\nB,,c900 0 1\n',
            "line 4: 'c900' is not in",
        ),
        (
            "charades",
            "Charades/Charades_v1_train.csv",
            'id,script,actions\nTR000,,c000 0 1\nTR001,"open,c000 0 1\nTR002,,c000 0 1\n',
            "line 4: unexpected end of data",
        ),
        (
            "charades",
            "Charades/Charades_v1_train.csv",
            'id,actions\nTR000,"' + "c000 0 1\n" * 20_000,
            "line .*: field larger than field limit",
        ),
        ("jester", "jester-v1-train.csv", '1;"No gesture\n2;No gesture\n', "line 1: a quote is not closed"),
    ],
)
def test_broken_annotations_are_refused_with_their_line(
    tmp_path: Path, dataset: str, file: str, content: str, message: str
) -> None:
    data = MAKERS[dataset](tmp_path)
    write(data / file, content)
    with pytest.raises(BlvnetError, match=message):
        read_listing(dataset, data, "train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    for dataset, name in (("ucf101", "ucfTrainTestlist"), ("hmdb51", "testTrainMulti_7030_splits")):
        with pytest.raises(BlvnetError, match=f"has no folder {name} or "):
            read_listing(dataset, tmp_path, "train")


def test_lists_may_give_several_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mp4", b"")
    write(tmp_path / "train.txt", "a.mp4 0,2\nb.mp4 1\n")
    listing = read_listing("list", tmp_path, "train")
    assert listing.multi_label
    assert [example.labels for example in listing.examples] == [(0, 2), (1,)]
    write(tmp_path / "train.txt", "a.mp4 1,3\nb.mp4 2\n")
    assert [example.labels for example in read_listing("list", tmp_path, "train").examples] == [(0, 2), (1,)]
    write(tmp_path / "train.txt", "a.mp4 1,x\n")
    with pytest.raises(BlvnetError, match="line 1: not path start end label"):
        read_listing("list", tmp_path, "train")


def test_lists_of_the_authors_have_several_labels_in_fields_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "train.txt").write_text("a 1 20 2 0 2\r\nb 3 9 1\r\n")
    listing = read_listing("list", tmp_path, "train")
    assert listing.multi_label
    assert [(item.labels, item.span) for item in listing.examples] == [((2, 0), (1, 20)), ((1,), (3, 9))]
    (tmp_path / "train.txt").write_text("a 1 20\n")
    with pytest.raises(BlvnetError, match="line 1: not path start end label"):
        read_listing("list", tmp_path, "train")


def test_line_separator_of_unicode_within_a_label_does_not_end_the_line(tmp_path: Path) -> None:
    label = "baking\u2028cookies"
    write(tmp_path / "train.csv", f"label,youtube_id,time_start,time_end\r\n{label},abc,0,10\r\n")
    write(tmp_path / "train" / "abc_000000_000010.mp4", b"")
    assert read_listing("kinetics-400", tmp_path, "train").labels == (label,)
    write(tmp_path / "labels.txt", f"{label}\r\nother\r\n")
    assert read_labels(tmp_path / "labels.txt") == (label, "other")
    write(tmp_path / "train.txt", "abc\u2028d.mp4;0\r\n")
    write(tmp_path / "abc\u2028d.mp4", b"")
    assert len(read_listing("list", tmp_path, "train").examples) == 1
    write(tmp_path / "Charades_v1_classes.txt", f"c000 {label}\n")
    write(tmp_path / "Charades_v1_train.csv", "id,script,actions\nABC,It is\x85 so,c000 0 1\n")
    write(tmp_path / "Charades_v1_480" / "ABC.mp4", b"")
    charades = read_listing("charades", tmp_path, "train")
    assert (charades.labels, len(charades.examples)) == ((label,), 1)

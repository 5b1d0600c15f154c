"""The published data sets in their layouts: examples, labels, symmetry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_export.datasets import ALIASES, READERS, Example, evaluation_split, read_listing
from service.errors import BlvnetError
from tests.model_export.datasets import layouts
from tests.model_export.datasets.layouts import KINETICS_LABELS, MOMENTS_LABELS, SOMETHING_LABELS, write


def test_v1_lists_folders_of_frames(tmp_path: Path) -> None:
    data = layouts.something_v1(tmp_path, (1, 1))
    listing = read_listing("something-something-v1", data, "val")
    folders = data / "20bn-something-something-v1"
    assert listing.labels == SOMETHING_LABELS
    assert listing.examples == tuple(Example(folders / str(105 + index), index) for index in range(4))
    assert listing.missing == 0


@pytest.mark.parametrize("later", [False, True], ids=["first release", "later release"])
def test_v2_finds_labels_by_their_templates(tmp_path: Path, later: bool) -> None:
    data = layouts.something_v2(tmp_path, (1, 1), later=later)
    listing = read_listing("something-something-v2", data, "train")
    folder = data / "20bn-something-something-v2"
    assert listing.labels == SOMETHING_LABELS
    assert listing.examples == tuple(Example(folder / f"{101 + index}.webm", index) for index in range(4))


def test_v2_reads_the_answers_of_the_test_split_if_there_are_any(tmp_path: Path) -> None:
    data = layouts.something_v2(tmp_path / "later", (1, 1), later=True)
    assert [clip.label for clip in read_listing("ssv2", data, "test").examples] == [1]
    with pytest.raises(BlvnetError, match=r"has no test-answers.csv"):
        read_listing("ssv2", layouts.something_v2(tmp_path / "first", (1, 1)), "test")


def test_directions_of_something_something_are_swapped_in_a_mirror(tmp_path: Path) -> None:
    symmetry = read_listing("ssv2", layouts.something_v2(tmp_path, (1, 1)), "train").symmetry
    assert symmetry.mirrored == (2, 1, 0, 3)  # "pulling it right out" does not change in a mirror
    assert symmetry.reversed == (None,) * 4


def test_direction_without_a_counterpart_is_not_mirrored(tmp_path: Path) -> None:
    data = layouts.something_v1(tmp_path, (1, 1))
    other = "Moving something left"
    write(data / "something-something-v1-labels.csv", "\n".join([other, *SOMETHING_LABELS[1:]]))
    write(data / "something-something-v1-train.csv", f"101;{other}\n")
    assert read_listing("ssv1", data, "train").symmetry.mirrored == (None, 1, None, 3)


@pytest.mark.parametrize("flat", [False, True], ids=["in folders", "flat"])
def test_kinetics_finds_videos_by_name_and_sorts_labels(tmp_path: Path, flat: bool) -> None:
    data = layouts.kinetics(tmp_path, (1, 1), flat=flat)
    listing = read_listing("kinetics-400", data, "train")
    assert listing.labels == tuple(sorted(KINETICS_LABELS))
    assert [clip.label for clip in listing.examples] == [0, 2, 1]
    assert [clip.path.name for clip in listing.examples][:2] == [
        "train-_00000_000003_000013.mp4",
        "train-_00001_000004_000014.mp4",
    ]
    assert all(clip.path.is_file() for clip in listing.examples)
    assert listing.symmetry.mirrored == (0, 1, 2)
    assert listing.symmetry.reversed == (None, None, None)


def test_kinetics_labels_are_those_of_the_training_split(tmp_path: Path) -> None:
    data = layouts.kinetics(tmp_path, (1, 1))
    kept = (data / "val.csv").read_text().splitlines()[:2]
    (data / "val.csv").unlink()
    write(data / "kinetics-400_validate.csv", "\n".join(kept))
    listing = read_listing("k400", data, "val")
    assert len(listing.labels) == 3
    assert len(listing.examples) == 1
    (data / "train.csv").unlink()
    assert read_listing("k400", data, "val").labels == (KINETICS_LABELS[0],)


def test_kinetics_finds_replacements_and_ids_without_times(tmp_path: Path) -> None:
    data = layouts.kinetics(tmp_path, (1, 1))
    first, second, third = (clip.path for clip in read_listing("k400", data, "train").examples)
    better = data / "replacement/replacement_for_corrupted_k400" / first.name
    write(better, first.read_bytes())
    second.rename(second.with_name("train-_00001.mkv"))
    paths = [clip.path for clip in read_listing("k400", data, "train").examples]
    assert paths == [better, second.with_name("train-_00001.mkv"), third]


def test_moments_in_time_file_names_may_contain_commas_and_spaces(tmp_path: Path) -> None:
    data = layouts.moments(tmp_path)
    write(data / "training/clapping/one, two.mp4", b"")
    write(data / "trainingSet.csv", "clapping/one, two.mp4,clapping,3,0\n")
    (example,) = read_listing("mit", data, "train").examples
    assert example.path == data / "training/clapping/one, two.mp4"


def test_moments_in_time_has_its_own_order_of_labels(tmp_path: Path) -> None:
    data = layouts.moments(tmp_path, (1, 1))
    listing = read_listing("moments-in-time", data, "val")
    assert listing.labels == ("aiming", "clapping", "playing+music")
    assert [clip.label for clip in listing.examples] == [1, 2, 0]
    assert listing.examples[0].path == data / "validation/clapping/yt-0_clapping.mp4"
    assert listing.symmetry.mirrored == (0, 1, 2)


def test_lists_name_frames_of_folders_and_videos(tmp_path: Path) -> None:
    data = layouts.lists(tmp_path, (1, 1))
    assert read_listing("list", data, "train").examples == (
        Example(data / "train/clip0", 0, (1, 8)),
        Example(data / "train/clip1", 1, (1, 8)),
    )
    write(data / "a video.mp4", layouts.video())
    write(data / "train.txt", "a video.mp4;2\ntrain/clip0;2;5;0\n")
    listing = read_listing("list", data, "train")
    assert listing.examples == (Example(data / "a video.mp4", 2), Example(data / "train/clip0", 0, (2, 5)))
    assert listing.labels == read_listing("list", data, "val").labels == ("0", "1", "2")
    assert listing.symmetry.mirrored == (None, None, None)
    write(data / "labels.txt", "\n".join(MOMENTS_LABELS))
    assert read_listing("list", data, "train").labels == MOMENTS_LABELS


MAKERS = {
    "ssv1": layouts.something_v1,
    "ssv2": layouts.something_v2,
    "k400": layouts.kinetics,
    "mit": layouts.moments,
    "list": layouts.lists,
}


@pytest.mark.parametrize("dataset", MAKERS)
def test_missing_videos_are_counted_and_are_an_error_if_all_are_missing(tmp_path: Path, dataset: str) -> None:
    data = MAKERS[dataset](tmp_path)
    whole = read_listing(dataset, data, "train")
    remove(whole.examples[0].path)
    listing = read_listing(dataset, data, "train")
    assert (listing.missing, listing.examples, listing.labels) == (1, whole.examples[1:], whole.labels)
    assert listing.only([0]).missing == 1
    for clip in whole.examples[1:]:
        remove(clip.path)
    with pytest.raises(
        BlvnetError, match=rf"none of its {len(whole.examples)} videos exists; the first is {tmp_path}/"
    ):
        read_listing(dataset, data, "train")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("dataset", MAKERS)
def test_error_for_missing_annotations_lists_the_searched_names(tmp_path: Path, dataset: str) -> None:
    data = MAKERS[dataset](tmp_path)
    for path in [*data.glob("*train*.*"), *data.glob("labels/*train*.*")]:
        path.unlink()
    names = (
        "something-something-v1-train.csv|something-something-v2-train.json|train.csv|trainSet.csv|train.txt"
    )
    with pytest.raises(
        BlvnetError, match=rf"{tmp_path.name} has no ({names}) or .* \(searched it, its labels/"
    ):
        read_listing(dataset, data, "train")
    with pytest.raises(BlvnetError, match="unknown split 'dev'; choose one of train, val, test"):
        read_listing(dataset, data, "dev")


@pytest.mark.parametrize(
    ("dataset", "file", "content", "message"),
    [
        ("ssv1", "something-something-v1-train.csv", "1;a;b\n", "line 1: not id;label"),
        (
            "ssv1",
            "something-something-v1-train.csv",
            "7;Nothing\n",
            "video 7 has the label 'Nothing', which is not",
        ),
        ("ssv1", "something-something-v1-train.csv", "", "names no videos"),
        ("ssv2", "something-something-v2-train.json", "{", "cannot be read as JSON"),
        ("ssv2", "something-something-v2-train.json", "[" * 100_000, "cannot be read as JSON"),
        ("ssv2", "something-something-v2-train.json", "{}", "is not a list of videos"),
        ("ssv2", "something-something-v2-train.json", '[{"id": "1"}]', "entry 0 has no id or no template"),
        ("ssv2", "something-something-v2-train.json", b"\xff\xff", "is not UTF-8 text"),
        ("k400", "train.csv", "youtube_id,time_start,time_end,split\n", "has no column 'label'"),
        ("k400", "train.csv", "label,youtube_id,time_start,time_end\na,b,c,d\n", "line 2: the times are not"),
        (
            "k400",
            "train.csv",
            f"label,youtube_id,time_start,time_end\na,b,{'1' * 5000},2\n",
            "line 2: the times are not",
        ),
        (
            "k400",
            "train.csv",
            "label,youtube_id,time_start,time_end\n,b,1,2\n",
            "line 2: one of label, youtube_id, .* is missing",
        ),
        ("k400", "train.csv", "label,youtube_id,time_start,time_end\n", "names no videos"),
        (
            "k400",
            "train.csv",
            "youtube_id,time_start,time_end,label\nb,1,2\n",
            "line 2: one of label, youtube_id, ",
        ),
        ("k400", "train.csv", "", "has no column 'label'"),
        ("mit", "trainingSet.csv", "a/b.mp4,clapping\n", "line 1: not label/file,label,count,count"),
        (
            "mit",
            "trainingSet.csv",
            "a/b.mp4,sleeping,3,0\n",
            "line 1: 'sleeping' is not in moments_categories.txt",
        ),
        ("list", "train.txt", "a b c d\n", "train.txt, line 1: not path start end label"),
        ("list", "train.txt", "a 5 4 0\n", "line 1: not path start end label"),
        ("list", "train.txt", "a 1 2 3 x\n", "line 1: not path start end label"),
    ],
)
def test_broken_annotations_are_refused_with_their_line(
    tmp_path: Path, dataset: str, file: str, content: str | bytes, message: str
) -> None:
    data = MAKERS[dataset](tmp_path)
    write(data / file, content)
    with pytest.raises(BlvnetError, match=message):
        read_listing(dataset, data, "train")


def test_list_with_a_label_beyond_the_label_file_is_refused(tmp_path: Path) -> None:
    data = layouts.lists(tmp_path)
    write(data / "labels.json", json.dumps(["only one"]))
    with pytest.raises(BlvnetError, match="has label 1; labels run from 0 to 0"):
        read_listing("list", data, "train")


def test_every_data_set_has_an_evaluation_split() -> None:
    assert {evaluation_split(name) for name in READERS} == {"test", "val"}
    assert evaluation_split("ssv2") == evaluation_split("kinetics-400") == "val"
    assert set(ALIASES.values()) <= set(READERS)


def test_lists_that_count_labels_from_1_have_no_empty_class(tmp_path: Path) -> None:
    """UCF101 has `ApplyEyeMakeup/v_1.avi 1`, and `1 ApplyEyeMakeup` in classInd.txt."""
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.mp4", b"")
    write(tmp_path / "train.txt", "a.mp4 1\nb.mp4 2\nc.mp4 3\n")
    write(tmp_path / "val.txt", "b.mp4 2\n")
    for names, labels in (
        (None, ("1", "2", "3")),
        ("eat\ndrink\nsleep\n", ("eat", "drink", "sleep")),
        ("1 eat\n2 drink\n3 sleep\n4 walk\n", ("eat", "drink", "sleep", "walk")),
    ):
        if names is not None:
            write(tmp_path / "labels.txt", names)
        listing = read_listing("list", tmp_path, "train")
        assert listing.labels == labels
        assert [example.label for example in listing.examples] == [0, 1, 2]
        assert listing.notes == (f"{tmp_path / 'train.txt'} counts labels from 1",)
        assert [example.label for example in read_listing("list", tmp_path, "val").examples] == [1]


def test_lists_that_count_from_0_keep_an_unused_first_class(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", b"")
    write(tmp_path / "train.txt", "a.mp4 1\n")
    write(tmp_path / "labels.txt", "eat\ndrink\nsleep\n")
    listing = read_listing("list", tmp_path, "train")
    assert [example.label for example in listing.examples] == [1]
    assert listing.notes == ()


def test_hidden_files_are_not_data(tmp_path: Path) -> None:
    data = layouts.something_v2(tmp_path, (1, 1))
    folder = data / "20bn-something-something-v2"
    (folder / "101.webm").rename(folder / ".101.webm")
    write(folder / "._102.mp4", b"")
    assert read_listing("ssv2", data, "train").missing == 1

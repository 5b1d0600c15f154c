"""Data sets in folders: layout, order of labels, symmetry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_export.datasets import Example, Listing, Symmetry, read_listing
from model_export.datasets.reading import read_views
from model_export.synthetic.dataset import PlannedVideo, write_dataset
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import BlvnetError
from tests.support.clips import numbered_clip

LEFT = "Moving something from left to right"
RIGHT = "Moving something from right to left"
UP = "Moving something up"
HOLDING = "Holding something still"


def make_tree(root: Path, *files: str, labels: object = None) -> Path:
    """Empty files below `root`, and `labels.json` if given."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if labels is not None:
        (root / "labels.json").write_text(json.dumps(labels))
    return root


def test_folder_lists_videos_with_sorted_labels(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/b/2.mp4", "train/b/1.webm", "train/a/3.MP4", "train/a/notes.txt")
    listing = read_listing("folder", data, "train")
    root = data / "train"
    assert listing.labels == ("a", "b")
    assert listing.examples == (
        Example(root / "a/3.MP4", 0),
        Example(root / "b/1.webm", 1),
        Example(root / "b/2.mp4", 1),
    )


def test_labels_file_gives_the_order_and_may_name_absent_classes(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "val/a/1.mp4", labels=["z", "a"])
    listing = read_listing("folder", data, "val")
    assert listing.labels == ("z", "a")
    assert [clip.label for clip in listing.examples] == [1]


def test_unknown_labels_are_neither_mirrored_nor_reversed(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{LEFT}/1.mp4", f"train/{RIGHT}/1.mp4")
    assert read_listing("folder", data, "train").symmetry == Symmetry((None, None), (None, None))


def test_synthetic_labels_swap_under_mirror_and_reversal(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{LEFT}/1.mp4", labels=[HOLDING, LEFT, RIGHT])
    symmetry = read_listing("synthetic", data, "train").symmetry
    assert symmetry == Symmetry(mirrored=(0, 2, 1), reversed=(0, 2, 1))


def test_label_without_its_counterpart_is_not_transformed(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{UP}/1.mp4", labels=[UP])
    symmetry = read_listing("synthetic", data, "train").symmetry
    assert symmetry == Symmetry(mirrored=(0,), reversed=(None,))


def test_only_keeps_the_examples_at_these_places(tmp_path: Path) -> None:
    listing = read_listing("folder", make_tree(tmp_path, "train/a/1.mp4", "train/a/2.mp4"), "train")
    rest = listing.only([1])
    assert rest == Listing(listing.labels, listing.examples[1:], listing.symmetry)


@pytest.mark.parametrize(
    ("dataset", "split", "labels", "message"),
    [
        (
            "imagenet",
            "train",
            None,
            "unknown data set 'imagenet'; choose one of charades, diving48, folder, hmdb51, ",
        ),
        ("folder", "test", None, "has no folder test"),
        ("folder", "train", ["b"], "the folder 'a' is not a label of labels.json"),
        ("folder", "train", {"a": 1}, "is not a list of labels"),
        ("folder", "train", ["a", "a"], "names a label twice"),
        ("folder", "empty", ["a"], "holds no video files"),
    ],
)
def test_wrong_data_is_refused_by_name(
    tmp_path: Path, dataset: str, split: str, labels: object, message: str
) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "empty/a/readme.txt", labels=labels)
    with pytest.raises(BlvnetError, match=message):
        read_listing(dataset, data, split)


def test_broken_labels_file_is_refused(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4")
    (data / "labels.json").write_text("[")
    with pytest.raises(BlvnetError, match="cannot be read as JSON"):
        read_listing("folder", data, "train")


def test_hidden_folders_and_files_are_not_data(tmp_path: Path) -> None:
    hidden = ("train/.ipynb_checkpoints/1.mp4", "train/a/._1.mp4", "train/a/.DS_Store")
    data = make_tree(tmp_path, "train/a/1.mp4", *hidden)
    listing = read_listing("folder", data, "train")
    assert listing.labels == ("a",)
    assert [example.path.name for example in listing.examples] == ["1.mp4"]
    assert listing.notes == ()


def test_files_of_windows_begin_with_a_mark(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/left/1.mp4")
    (data / "labels.json").write_text('["right", "left"]', encoding="utf-8-sig")
    (data / "symmetry.json").write_text('{"mirrored": {"left": "right", "right": "left"}}', "utf-8-sig")
    listing = read_listing("folder", data, "train")
    assert listing.labels == ("right", "left")
    assert listing.symmetry.mirrored == (1, 0)


def test_files_that_are_not_listed_are_counted_in_a_note(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "train/a/1.txt", "train/a/2.txt", "train/a/3.jpg")
    note = "train: 3 entries are not videos by their suffix (2 .txt, 1 .jpg)"
    assert read_listing("folder", data, "train").notes == (note,)


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        (".mpg", "mpeg", "mpeg2video"),
        (".3gp", "3gp", "mpeg4"),
        (".ts", "mpegts", "libx264"),
        (".wmv", "asf", "wmv2"),
        (".flv", "flv", "flv"),
        (".ogv", "ogg", "libvpx"),
        (".mxf", "mxf", "mpeg2video"),
        (".gif", "gif", "gif"),
        (".y4m", "yuv4mpegpipe", "rawvideo"),
        (".ivf", "ivf", "libvpx"),
        (".h264", "h264", "libx264"),
    ],
)
def test_every_container_of_the_service_is_listed_and_read(
    tmp_path: Path, suffix: str, container: str, codec: str
) -> None:
    path = tmp_path / f"train/a/1{suffix}"
    path.parent.mkdir(parents=True)
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    path.write_bytes(numbered_clip(frames=8, container=container, codec=codec, pix_fmt=pix_fmt))
    listing = read_listing("folder", tmp_path, "train")
    spec = ClipSpec(2, (InputSpec("frames", Frames.ALL, 32, 32),))
    assert [example.path for example in listing.examples] == [path]
    assert read_views(listing.examples[0], spec)["frames"].shape == (1, 2, 32, 32, 3)


def test_every_split_has_the_labels_of_the_training_split(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "train/b/1.mp4", "val/b/1.mp4", "test/c/1.mp4")
    listing = read_listing("folder", data, "val")
    assert listing.labels == ("a", "b")
    assert [example.label for example in listing.examples] == [1]
    assert listing.unused_labels() == ("a",)
    with pytest.raises(BlvnetError, match=r"the folder 'c' is not a label of .*/train"):
        read_listing("folder", data, "test")


def write_symmetry(data: Path, document: object) -> None:
    (data / "symmetry.json").write_text(json.dumps(document))


def test_symmetry_file_defines_mirrored_labels(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/left/1.mp4", "train/right/1.mp4", "train/up/1.mp4")
    write_symmetry(data, {"mirrored": {"left": "right", "right": "left", "*": "*"}, "reversed": {"up": None}})
    symmetry = read_listing("folder", data, "train").symmetry
    assert symmetry == Symmetry(mirrored=(1, 0, 2), reversed=(None, None, None))
    (data / "train.txt").write_text("train/left/1.mp4 0\ntrain/right/1.mp4 1\ntrain/up/1.mp4 2\n")
    (data / "labels.txt").write_text("left\nright\nup\n")
    assert read_listing("list", data, "train").symmetry == symmetry


def test_synth_writes_the_symmetry_of_its_labels(tmp_path: Path) -> None:
    list(write_dataset(tmp_path, [PlannedVideo("train", LEFT, 0, 1)], jobs=1))
    listing = read_listing("folder", tmp_path, "train")
    assert listing.symmetry == read_listing("synthetic", tmp_path, "train").symmetry
    left, right = (listing.labels.index(label) for label in (LEFT, RIGHT))
    assert (listing.symmetry.mirrored[left], listing.symmetry.reversed[left]) == (right, right)
    assert None not in listing.symmetry.mirrored + listing.symmetry.reversed


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be an object whose keys are mirrored or reversed"),
        ({"mirror": {}}, "must be an object whose keys are mirrored or reversed"),
        ({"mirrored": {"a": 1}}, '"mirrored" must map labels to labels or null'),
        ({"mirrored": {"a": "z"}}, "\"mirrored\" names 'z', which is not among the labels"),
        ({"reversed": {"a": "b"}}, "\"reversed\" maps 'a' to 'b', but not 'b' back to it"),
        ({"mirrored": {"*": "a"}}, 'the only entry for the other labels in "mirrored" is'),
    ],
)
def test_wrong_symmetry_is_refused_by_name(tmp_path: Path, document: object, message: str) -> None:
    data = make_tree(tmp_path, "train/a/1.mp4", "train/b/1.mp4")
    write_symmetry(data, document)
    with pytest.raises(BlvnetError, match=message):
        read_listing("folder", data, "train")

"""Lists of clips: layouts, label order, and what labels turn into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_export.datasets import Clip, Listing, Symmetry, read_listing
from service.errors import BlvnetError

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


def test_folder_lists_clips_with_sorted_labels(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "train/b/2.mp4", "train/b/1.webm", "train/a/3.MP4", "train/a/notes.txt")
    listing = read_listing("folder", data, "train")
    root = data / "train"
    assert listing.labels == ("a", "b")
    assert listing.clips == (Clip(root / "a/3.MP4", 0), Clip(root / "b/1.webm", 1), Clip(root / "b/2.mp4", 1))


def test_labels_file_gives_the_order_and_may_name_absent_classes(tmp_path: Path) -> None:
    data = make_tree(tmp_path, "val/a/1.mp4", labels=["z", "a"])
    listing = read_listing("folder", data, "val")
    assert listing.labels == ("z", "a")
    assert [clip.label for clip in listing.clips] == [1]


def test_unknown_labels_are_neither_mirrored_nor_reversed(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{LEFT}/1.mp4", f"train/{RIGHT}/1.mp4")
    assert read_listing("folder", data, "train").symmetry == Symmetry((None, None), (None, None))


def test_synthetic_labels_swap_under_mirror_and_reversal(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{LEFT}/1.mp4", labels=[HOLDING, LEFT, RIGHT])
    symmetry = read_listing("synthetic", data, "train").symmetry
    assert symmetry == Symmetry(mirrored=(0, 2, 1), reversed=(0, 2, 1))


def test_label_whose_counterpart_is_missing_is_not_transformed(tmp_path: Path) -> None:
    data = make_tree(tmp_path, f"train/{UP}/1.mp4", labels=[UP])
    symmetry = read_listing("synthetic", data, "train").symmetry
    assert symmetry == Symmetry(mirrored=(0,), reversed=(None,))


def test_without_leaves_files_out(tmp_path: Path) -> None:
    listing = read_listing("folder", make_tree(tmp_path, "train/a/1.mp4", "train/a/2.mp4"), "train")
    rest = listing.without(frozenset({tmp_path / "train/a/1.mp4"}))
    assert rest == Listing(listing.labels, listing.clips[1:], listing.symmetry)


@pytest.mark.parametrize(
    ("dataset", "split", "labels", "message"),
    [
        (
            "imagenet",
            "train",
            None,
            "no data set 'imagenet'; there are folder, k400, kinetics-400, list, mit, ",
        ),
        ("folder", "test", None, "has no folder 'test'"),
        ("folder", "train", ["b"], "labels.json does not name 'a'"),
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

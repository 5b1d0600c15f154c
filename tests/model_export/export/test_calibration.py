"""Clips for an export: which videos of a folder or data set are read, their classes, and unreadable ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from model_export.datasets import read_listing
from model_export.export.calibration import (
    ExampleSet,
    examples_in_folder,
    examples_of_dataset,
    labelled_clips,
    read_clips,
)
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import BlvnetError
from tests.model_export.datasets import layouts
from tests.support.clips import numbered_clip, numbered_pictures, read_numbers

SPEC = ClipSpec(2, (InputSpec("frames", Frames.ALL, 48, 48),))


def reporter() -> tuple[ProgressReporter, io.StringIO]:
    """A reporter, and the text that it prints."""
    text = io.StringIO()
    return ProgressReporter(Console(file=text, width=1000)), text


QUIET, _ = reporter()


def first_numbers(source: ExampleSet, count: int, *, repeat: bool = True) -> list[int]:
    """The number on the first sampled frame of each clip that is read."""
    clips = read_clips(source, SPEC, count, QUIET, repeat=repeat)
    return [read_numbers(clip["frames"])[0] for clip in clips]


def numbered_data(root: Path, numbers: Sequence[int]) -> Path:
    """A list of folders of pictures, each of which shows one number, with the labels 0 and 1 in turn."""
    lines = []
    for place, number in enumerate(numbers):
        numbered_pictures(root / f"clip{place}", [number] * 2)
        lines.append(f"clip{place} {place % 2}")
    layouts.write(root / "train.txt", "\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("dataset", "make"),
    [
        ("ssv1", layouts.something_v1),
        ("ssv2", layouts.something_v2),
        ("k400", layouts.kinetics),
        ("mit", layouts.moments),
        ("list", layouts.lists),
    ],
)
def test_clips_of_a_data_set_have_its_labels(
    dataset: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    data = make(tmp_path)
    listing = read_listing(dataset, data, "val")
    source = examples_of_dataset(dataset, data, "val", listing.labels, QUIET)
    clips = list(labelled_clips(source, SPEC, QUIET))
    assert [clip.label for clip in clips] == [clip.label for clip in listing.examples]
    assert {clip.inputs["frames"].shape for clip in clips} == {(2, 48, 48, 3)}


def test_clips_are_spread_over_a_data_set_and_repeat_only_if_they_may(tmp_path: Path) -> None:
    source = examples_of_dataset("list", numbered_data(tmp_path, range(10, 16)), "train", None, QUIET)
    assert first_numbers(source, 3) == [11, 13, 15]
    assert first_numbers(source, 9, repeat=False) == list(range(10, 16))
    assert len(first_numbers(source, 9)) == 9


def test_bad_clip_of_a_data_set_is_named_and_left_out_and_a_missing_one_counted(tmp_path: Path) -> None:
    data = numbered_data(tmp_path, range(10, 14))
    next((data / "clip1").iterdir()).write_bytes(b"no picture")
    (data / "clip2").rename(tmp_path / "gone")
    progress, text = reporter()
    source = examples_of_dataset("list", data, "train", None, progress)
    clips = list(labelled_clips(source, SPEC, progress))
    assert [(read_numbers(clip.inputs["frames"])[0], clip.label) for clip in clips] == [(10, 0), (13, 1)]
    said = text.getvalue().splitlines()
    assert said[0] == "1 of 4 train videos are missing"
    assert said[1].startswith(f"unreadable: {data / 'clip1'}: ")
    assert first_numbers(source, 4) == [10, 13, 10, 13]


def test_data_set_of_bad_clips_alone_is_refused(tmp_path: Path) -> None:
    data = numbered_data(tmp_path, [10])
    for picture in (data / "clip0").iterdir():
        picture.write_bytes(b"")
    source = examples_of_dataset("list", data, "train", None, QUIET)
    with pytest.raises(BlvnetError, match="train of list: none of the videos can be read"):
        read_clips(source, SPEC, 4, QUIET)


def test_hidden_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    for name in (".cache/1.mp4", "left/._1.mp4"):
        layouts.write(tmp_path / name, b"no video")
    layouts.write(tmp_path / "left/1.mp4", numbered_clip(frames=2))
    assert [example.path for example in examples_in_folder(tmp_path).examples] == [tmp_path / "left/1.mp4"]


def test_clip_in_a_folder_is_of_its_folders_class_and_a_bad_one_is_an_error(tmp_path: Path) -> None:
    for folder in ("b", "deep/a", "other"):
        layouts.write(tmp_path / folder / "clip.mp4", numbered_clip(frames=4))
    source = examples_in_folder(tmp_path, ["a", "b"])
    clips = labelled_clips(source, SPEC, QUIET)
    assert [clip.label for clip in clips] == [1, 0, None]
    layouts.write(tmp_path / "bad.mp4", b"no video")
    with pytest.raises(BlvnetError, match=r"bad\.mp4: "):
        read_clips(examples_in_folder(tmp_path), SPEC, 4, QUIET)

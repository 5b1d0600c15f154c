import json
from collections import Counter
from pathlib import Path

import pytest

from model_export.synthetic.dataset import PlannedVideo, make_video, plan, split_counts, write_dataset
from model_export.synthetic.labels import LABELS, SPLITS
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.errors import BlvnetError


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("clips", "shares", "expected"),
    [
        (100, {"train": 0.88, "val": 0.04, "test": 0.08}, [88, 4, 8]),
        (7, {"train": 0.5, "val": 0.25, "test": 0.25}, [3, 2, 2]),
        (10, {"test": 1.0}, [0, 0, 10]),
        (1, {"train": 1, "val": 1, "test": 1}, [1, 0, 0]),
        (9, {"train": 30, "test": 60}, [3, 0, 6]),
    ],
)
def test_split_counts_add_up(clips: int, shares: dict[str, float], expected: list[int]) -> None:
    counts = split_counts(clips, {split: shares[split] for split in SPLITS if split in shares})
    assert [counts[split] for split in SPLITS] == expected


@pytest.mark.parametrize("clips", [22, 1000, 4321])
def test_every_split_is_balanced_over_the_labels(clips: int) -> None:
    plans = plan(clips, seed=1)
    assert len(plans) == len(set(plans)) == clips
    for split in SPLITS:
        counts = Counter(dict.fromkeys(LABELS, 0))
        counts.update(one.label for one in plans if one.split == split)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_files_are_the_same_for_any_number_of_jobs(tmp_path: Path) -> None:
    plans = plan(24, seed=3)
    for jobs in (1, 2):
        assert len(list(write_dataset(tmp_path / str(jobs), plans, jobs))) == 24
    one, two = files_below(tmp_path / "1"), files_below(tmp_path / "2")
    assert len(one) == 26
    assert one == two


def test_folder_contains_splits_labels_and_the_ordered_list(tmp_path: Path) -> None:
    plans = plan(len(LABELS), seed=4, shares={"train": 1})
    plans += [PlannedVideo("val", LABELS[3], 0, 4), PlannedVideo("test", LABELS[5], 0, 4)]
    written = set(write_dataset(tmp_path, plans, jobs=1))
    assert json.loads((tmp_path / "labels.json").read_text()) == list(LABELS)
    assert sorted(folder.name for folder in (tmp_path / "train").iterdir()) == sorted(LABELS)
    assert [folder.name for folder in (tmp_path / "val").iterdir()] == [LABELS[3]]
    assert [folder.name for folder in (tmp_path / "test").iterdir()] == [LABELS[5]]
    assert {path for path in tmp_path.glob("*/*/*") if path.suffix in (".mp4", ".webm")} == written


def test_service_decodes_the_clips(tmp_path: Path) -> None:
    spec = ClipSpec(
        16, (InputSpec("little", Frames.EVEN, 64, 64), InputSpec("big", Frames.ODD, 32, 64)), stride=1
    )
    for path in write_dataset(tmp_path, plan(12, seed=9), jobs=1):
        clip = decode_video(path, spec, DecodeLimits())
        assert clip.inputs["little"].shape == (1, 8, 64, 64, 3)
        assert clip.inputs["little"].std() > 1
        assert clip.video.codec == ("h264" if path.suffix == ".mp4" else "vp9")


def test_seeds_and_splits_give_other_clips(tmp_path: Path) -> None:
    plans = [
        PlannedVideo("train", LABELS[0], 0, 1),
        PlannedVideo("train", LABELS[0], 0, 2),
        PlannedVideo("test", LABELS[0], 0, 1),
    ]
    assert len({path.read_bytes() for path in write_dataset(tmp_path, plans, jobs=1)}) == 3


@pytest.mark.parametrize("kind", ["full", "file"])
def test_folder_with_contents_is_not_changed(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine.txt").write_text("precious")
    else:
        out.write_text("precious")
    with pytest.raises(BlvnetError, match="not an empty folder: name another one"):
        next(write_dataset(out, plan(1, seed=1), jobs=1))
    assert len(list(tmp_path.rglob("*"))) == (2 if kind == "full" else 1)


def test_unwritable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BlvnetError, match=r"cannot write .*No such file") as caught:
        make_video(tmp_path / "nowhere", PlannedVideo("train", LABELS[0], 0, 1))
    assert "\n" not in caught.value.message


def test_stopped_run_has_no_label_list(tmp_path: Path) -> None:
    made = write_dataset(tmp_path, plan(12, seed=1), jobs=1)
    next(made)
    made.close()
    assert not (tmp_path / "labels.json").exists()

"""Makers of small data in the layouts that the published data sets have, with real videos and pictures.

Clips of label i show numbers from 100 * (i + 1) on, so that a test reads back which clip it got.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.support.clips import numbered_clip, numbered_pictures

SOMETHING_LABELS = (
    "Turning the camera left while filming something",
    "Putting something, something and something on the table",
    "Turning the camera right while filming something",
    "Plugging something into something but pulling it right out as you remove your hand",
)
KINETICS_LABELS = ("air drumming", "playing chess", "massaging person's head")  # in the order of the files
MOMENTS_LABELS = ("clapping", "playing+music", "aiming")
UCF_LABELS = ("ApplyEyeMakeup", "YoYo")
HMDB_LABELS = ("brush_hair", "wave")
JESTER_LABELS = (
    "Swiping Left",
    "Swiping Right",
    "Turning Hand Clockwise",
    "Turning Hand Counterclockwise",
    "No gesture",
)
DIVES = (["Back", "15som", "05Twis", "FREE"], ["Forward", "15som", "NoTwis", "PIKE"])
CHARADES_LABELS = ("Holding some clothes", "Opening a door", "Washing a window")

KINETICS_HEADER = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")

FRAMES = 8
Counts = tuple[int, int]
"""Number of training and of validation videos of each label."""


@cache
def video(container: str = "mp4", codec: str = "libx264") -> bytes:
    """A clip of numbered frames, encoded once."""
    return numbered_clip(frames=FRAMES, container=container, codec=codec)


def write(path: Path, content: str | bytes) -> None:
    """Write a file and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def something_v1(root: Path, counts: Counts = (2, 1)) -> Path:
    """Something-Something V1 as unpacked."""
    return as_something_v1(root, SOMETHING_LABELS, counts)


def as_something_v1(root: Path, labels: Sequence[str], counts: Counts = (2, 1)) -> Path:
    """Videos of other labels in the same layout."""
    write(root / "something-something-v1-labels.csv", "\n".join(labels) + "\n")
    number = 100
    for split, count in zip(("train", "validation"), counts, strict=True):
        lines = []
        for label in [*labels] * count:
            number += 1
            lines.append(f"{number};{label}")
            numbered_pictures(root / "20bn-something-something-v1" / str(number), range(FRAMES), 176, 100)
        write(root / f"something-something-v1-{split}.csv", "\n".join(lines) + "\n")
    write(root / "something-something-v1-test.csv", "1420\n1421\n")
    return root


def something_v2(root: Path, counts: Counts = (2, 1), *, later: bool = False) -> Path:
    """Something-Something V2 in its first or, with `later`, its second release."""
    place, prefix = (root / "labels", "") if later else (root, "something-something-v2-")
    table = {label: str(index) for index, label in enumerate(SOMETHING_LABELS)}
    write(place / f"{prefix}labels.json", json.dumps(dict(sorted(table.items()))))
    number = 100
    for split, count in zip(("train", "validation"), counts, strict=True):
        entries = []
        for label in SOMETHING_LABELS * count:
            number += 1
            template = label.replace("something", "[something]")
            said = {"label": label.replace("something", "a cup"), "placeholders": ["a cup"]}
            entries.append({"id": str(number), "template": template, **said})
            write(root / f"20bn-something-something-v2/{number}.webm", video("webm", "libvpx-vp9"))
        write(place / f"{prefix}{split}.json", json.dumps(entries))
    write(place / f"{prefix}test.json", json.dumps([{"id": "101"}]))
    if later:
        write(place / "test-answers.csv", f"101;{SOMETHING_LABELS[1]}\n")
    return root


def kinetics(root: Path, counts: Counts = (2, 1), *, flat: bool = False) -> Path:
    """Kinetics as crawlers write it or, with `flat`, as unpacked from the CVDF's archives."""
    for split, csv_name, count in zip(("train", "val"), ("train", "val"), counts, strict=True):
        rows = []
        for index, label in enumerate(KINETICS_LABELS * count):
            start = 3 + index
            rows.append([label, f"{split}-_{index:05d}", start, start + 10, split, 0])
            name = f"{split}-_{index:05d}_{start:06d}_{start + 10:06d}.mp4"
            folder = root / split if flat else root / split / label.replace(" ", "_")
            write(folder / name, video())
        place = root / "annotations" if flat else root
        place.mkdir(parents=True, exist_ok=True)
        table(
            place / f"{csv_name}.csv",
            KINETICS_HEADER,
            rows,
        )
    return root


def moments(root: Path, counts: Counts = (2, 1)) -> Path:
    """Moments in Time as unpacked."""
    indices = (1, 2, 0)  # the file is not in the order of the indices
    lines = [f"{label},{index}" for label, index in zip(MOMENTS_LABELS, indices, strict=True)]
    write(root / "moments_categories.txt", "\n".join(lines) + "\n")
    for split, count in zip(("training", "validation"), counts, strict=True):
        names = [f"{label}/yt-{index}_{label}.mp4" for index in range(count) for label in MOMENTS_LABELS]
        for name in names:
            write(root / split / name, video())
        rows = [f"{name},{name.partition('/')[0]},3,0" for name in names]
        write(root / f"{split}Set.csv", "\n".join(rows) + "\n")
    return root


def lists(root: Path, counts: Counts = (2, 1)) -> Path:
    """Frames and lists of two labels, as the authors' tools write them."""
    for split, count in zip(("train", "val"), counts, strict=True):
        lines = []
        for index in range(2 * count):
            folder = Path(split, f"clip{index}")
            numbered_pictures(root / folder, range(FRAMES))
            lines.append(f"{folder} 1 {FRAMES} {index % 2}")
        write(root / f"{split}.txt", "\n".join(lines) + "\n")
    return root


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a csv file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def ucf101(root: Path, counts: Counts = (2, 1)) -> Path:
    """UCF101 as unpacked from its two archives; every split has the same videos."""
    names = [f"v_{label}_g{group:02d}_c01" for label in UCF_LABELS for group in range(1, 1 + sum(counts))]
    for name in names:
        write(root / "UCF-101" / name.split("_")[1] / f"{name}.avi", video("avi", "mpeg4"))
    place = root / "ucfTrainTestlist"
    write(place / "classInd.txt", "".join(f"{i} {label}\r\n" for i, label in enumerate(UCF_LABELS, start=1)))
    for number in (1, 2, 3):
        train, test = [], []
        for index, label in enumerate(UCF_LABELS, start=1):
            own = [f"{label}/{name}.avi" for name in names if f"_{label}_" in name]
            train += [f"{name} {index}" for name in own[: counts[0]]]
            test += own[counts[0] :]
        write(place / f"trainlist0{number}.txt", "\r\n".join(train) + "\r\n")
        write(place / f"testlist0{number}.txt", "\r\n".join(test) + "\r\n")
    return root


def hmdb51(root: Path, counts: Counts = (2, 1)) -> Path:
    """HMDB51 as unpacked; the second split swaps the first training video with the first other."""
    for label in HMDB_LABELS:
        names = [f"{label} #{index}! best_h_nm_np1.avi" for index in range(sum(counts))]
        for name in names:
            write(root / "hmdb51_org" / label / name, video("avi", "mpeg4"))
        marks = [1] * counts[0] + [2] * counts[1]
        second = marks.copy()
        second[0], second[counts[0]] = second[counts[0]], second[0]
        for number, given in ((1, marks), (2, second), (3, marks)):
            lines = [f"{name} {mark} " for name, mark in zip(names, given, strict=True)] + ["unused.avi 0 "]
            path = root / "testTrainMulti_7030_splits" / f"{label}_test_split{number}.txt"
            write(path, "\n".join(lines) + "\n")
    return root


def jester(root: Path, counts: Counts = (2, 1)) -> Path:
    """Jester as unpacked."""
    write(root / "jester-v1-labels.csv", "\n".join(JESTER_LABELS) + "\n")
    number = 0
    for split, count in zip(("train", "validation"), counts, strict=True):
        lines = []
        for label in [*JESTER_LABELS] * count:
            number += 1
            lines.append(f"{number};{label}")
            numbered_pictures(root / "20bn-jester-v1" / str(number), range(FRAMES), 176, 100)
        write(root / f"jester-v1-{split}.csv", "\n".join(lines) + "\n")
    return root


def diving48(root: Path, counts: Counts = (2, 1)) -> Path:
    """Diving48 in its second version."""
    write(root / "Diving48_vocab.json", json.dumps(DIVES))
    for split, count in zip(("train", "test"), counts, strict=True):
        entries = []
        for index in range(count * len(DIVES)):
            name = f"{split}_{index:05d}"
            write(root / "rgb" / f"{name}.mp4", video())
            entry = {"vid_name": name, "label": index % len(DIVES), "start_frame": 0, "end_frame": FRAMES}
            entries.append(entry)
        write(root / f"Diving48_V2_{split}.json", json.dumps(entries))
    return root


def charades(root: Path, counts: Counts = (2, 1)) -> Path:
    """Charades as unpacked: a video with two actions, one with one (twice), and one with none."""
    classes = "".join(f"c{index:03d} {label}\n" for index, label in enumerate(CHARADES_LABELS))
    write(root / "Charades" / "Charades_v1_classes.txt", classes)
    actions = ("c002 11.90 21.20;c000 0.00 12.60", "c001 0.00 3.00;c001 5.00 9.00")
    for split, count in zip(("train", "test"), counts, strict=True):
        rows = []
        for index in range(2 * count):
            name = f"{split.upper()[:2]}{index:03d}"
            rows.append([name, "Kitchen", actions[index % 2], "30.5"])
            write(root / "Charades_v1_480" / f"{name}.mp4", video())
        rows.append(["IDLE0", "Kitchen", "", "30.5"])
        table(root / "Charades" / f"Charades_v1_{split}.csv", ("id", "scene", "actions", "length"), rows)
    return root

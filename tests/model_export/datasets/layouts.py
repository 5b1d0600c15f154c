"""Makers of small data in the layouts that the published data sets have, with real videos and pictures.

Clips of label i show numbers from 100 * (i + 1) on, so that a test reads back which clip it got.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.clips import numbered_clip, numbered_pictures

SOMETHING_LABELS = (
    "Turning the camera left while filming something",
    "Putting something, something and something on the table",
    "Turning the camera right while filming something",
    "Plugging something into something but pulling it right out as you remove your hand",
)
KINETICS_LABELS = ("air drumming", "playing chess", "massaging person's head")  # in the order of the files
MOMENTS_LABELS = ("clapping", "playing+music", "aiming")

KINETICS_HEADER = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")

FRAMES = 8
Counts = tuple[int, int]
"""How many clips of each label there are to train on, and to validate on."""


@cache
def video(container: str = "mp4", codec: str = "libx264") -> bytes:
    """A clip of numbered frames, encoded once."""
    return numbered_clip(frames=FRAMES, container=container, codec=codec)


def write(path: Path, content: str | bytes) -> None:
    """A file, with the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def something_v1(root: Path, counts: Counts = (2, 1)) -> Path:
    """As the archive and the four csv files of Something-Something V1 unpack."""
    return as_something_v1(root, SOMETHING_LABELS, counts)


def as_something_v1(root: Path, labels: Sequence[str], counts: Counts = (2, 1)) -> Path:
    """Clips of other labels, laid out like them."""
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
    """As Something-Something V2 was released first, or `later`."""
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
    """As crawlers write it, or `flat` as the CVDF's archives unpack."""
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
    """Moments in Time as its archive unpacks."""
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
    """Frames and lists as the authors' tools leave them, two labels."""
    for split, count in zip(("train", "val"), counts, strict=True):
        lines = []
        for index in range(2 * count):
            folder = Path(split, f"clip{index}")
            numbered_pictures(root / folder, range(FRAMES))
            lines.append(f"{folder} 1 {FRAMES} {index % 2}")
        write(root / f"{split}.txt", "\n".join(lines) + "\n")
    return root


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A csv file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])

"""UCF101 and HMDB51, which have three splits each; a name without a number is the first.

    DATA/UCF-101/LABEL/v_LABEL_g01_c01.avi
    DATA/ucfTrainTestlist/classInd.txt                      "1 ApplyEyeMakeup"
    DATA/ucfTrainTestlist/trainlist01.txt, testlist01.txt   "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"

    DATA/hmdb51_org/LABEL/NAME.avi
    DATA/testTrainMulti_7030_splits/LABEL_test_split1.txt   "NAME.avi 1": 1 to train, 2 to test, 0 for neither

Videos may have another suffix, and lie in `videos` or in DATA itself. The testing videos are both `val` and
`test`. Labels are in the order of classInd.txt, or alphabetical. UCF101 videos that were cut from one video
have the same number in their names (g08), which is their group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from model_export.datasets.files import (
    find_folder,
    make_listing,
    read_lines,
    split_names,
    videos_by_stem,
    visible_entries,
)
from model_export.datasets.labels import checked, read_labels
from model_export.datasets.listing import Example, Listing, Reader
from model_export.datasets.symmetry import mirrored_unchanged
from service.errors import BlvnetError

UCF_LISTS = ("ucfTrainTestlist", "annotations", "labels")
UCF_VIDEOS = ("UCF-101", "UCF101", "videos", ".")
UCF_GROUP = re.compile(r"_(g\d+)_c\d+$")
HMDB_LISTS = ("testTrainMulti_7030_splits", "annotations", "labels")
HMDB_VIDEOS = ("hmdb51_org", "hmdb51", "videos", ".")
HMDB_MARKS = {"train": "1", "test": "2"}
SPLITS = (1, 2, 3)


def numbered_readers() -> dict[str, Reader]:
    """The readers by data set: `ucf101`, `ucf101-1` to `-3`, and the same for `hmdb51`."""
    readers: dict[str, Reader] = {}
    for name, read in (("ucf101", read_ucf101), ("hmdb51", read_hmdb51)):
        readers[name] = partial(read, number=1)
        readers |= {f"{name}-{number}": partial(read, number=number) for number in SPLITS}
    return readers


def read_ucf101(data: Path, split: str, *, number: int) -> Listing:
    """Read a split of UCF101.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    folder = find_folder(data, UCF_LISTS)
    labels = read_labels(folder / "classInd.txt")
    index = {label: position for position, label in enumerate(labels)}
    source = folder / f"{_part(split)}list{number:02d}.txt"
    videos = _videos(find_folder(data, UCF_VIDEOS))

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for line_number, line in enumerate(read_lines(source), start=1):
            if not line.strip():
                continue
            name = line.split()[0]
            label, _, file = name.partition("/")
            if label not in index or not file:
                raise BlvnetError(f"{source}, line {line_number}: not LABEL/FILE of a label in classInd.txt")
            stem = Path(file).stem
            group = UCF_GROUP.search(stem)
            example = None
            if (label, stem) in videos:
                example = Example(
                    videos[label, stem], index[label], group=f"{label} {group[1]}" if group else None
                )
            yield name, example

    return make_listing(source, labels, mirrored_unchanged(labels), annotated())


def read_hmdb51(data: Path, split: str, *, number: int) -> Listing:
    """Read a split of HMDB51.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    folder = find_folder(data, HMDB_LISTS)
    ending = f"_test_split{number}.txt"
    names = [entry.name for entry in visible_entries(folder) if entry.name.endswith(ending)]
    if not names:
        raise BlvnetError(f"{folder} has no files LABEL{ending}")
    labels = checked(sorted(name.removesuffix(ending) for name in names))
    mark = HMDB_MARKS[_part(split)]
    videos = _videos(find_folder(data, HMDB_VIDEOS))

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for index, label in enumerate(labels):
            source = folder / f"{label}{ending}"
            for line_number, line in enumerate(read_lines(source), start=1):
                name, _, given = line.strip().rpartition(" ")
                if line.strip() and (not name or given not in ("0", "1", "2")):
                    raise BlvnetError(f"{source}, line {line_number}: not FILE and 0, 1 or 2")
                if given == mark:
                    path = videos.get((label, Path(name.strip()).stem))
                    yield f"{label}/{name.strip()}", None if path is None else Example(path, index)

    return make_listing(folder, labels, mirrored_unchanged(labels), annotated())


def _part(split: str) -> str:
    """`train` or `test`; these data sets have no separate validation split."""
    return "train" if "train" in split_names(split) else "test"


def _videos(folder: Path) -> dict[tuple[str, str], Path]:
    """Videos in folders named after their labels, by label and name without suffix."""
    videos: dict[tuple[str, str], Path] = {}
    for entry in visible_entries(folder):
        if entry.is_dir():
            for name, path in videos_by_stem(folder / entry.name).items():
                videos[entry.name, name] = path
    return videos

"""Diving48: competitive dives, told apart by how they start, turn and end.

    DATA/Diving48_vocab.json                        [["Back", "15som", "05Twis", "FREE"], ...]
    DATA/Diving48_V2_train.json, Diving48_V2_test.json, or without V2 as first released
                                                    [{"vid_name", "label", "start_frame", "end_frame"}, ...]
    DATA/rgb/NAME.mp4

The testing videos are both `val` and `test`. A mirrored dive keeps its label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_export.datasets.files import (
    find_file,
    find_folder,
    make_listing,
    read_json_list,
    split_names,
    videos_by_stem,
)
from model_export.datasets.labels import checked
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import mirrored_unchanged
from service.errors import BlvnetError

VOCABULARY = "Diving48_vocab.json"


def read_diving48(data: Path, split: str) -> Listing:
    """Read Diving48.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    vocabulary = read_json_list(find_file(data, [VOCABULARY]), "labels")
    labels = checked([" ".join(map(str, parts)) if isinstance(parts, list) else "" for parts in vocabulary])
    part = "train" if "train" in split_names(split) else "test"
    source = find_file(data, [f"Diving48_V2_{part}.json", f"Diving48_{part}.json"])
    folder = find_folder(data, ["rgb", "videos"])
    videos = videos_by_stem(folder)

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for number, entry in enumerate(read_json_list(source, "videos")):
            label = entry.get("label") if isinstance(entry, dict) else None
            if not isinstance(label, int) or not 0 <= label < len(labels) or "vid_name" not in entry:
                raise BlvnetError(
                    f"{source}: entry {number} has no vid_name, or no label from 0 to {len(labels) - 1}"
                )
            name = str(entry["vid_name"])
            yield str(folder / name), Example(videos[name], label) if name in videos else None

    return make_listing(source, labels, mirrored_unchanged(labels), annotated())

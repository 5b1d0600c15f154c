"""Lists of labelled clips: one reader per data set layout, in one table.

A reader takes the data's folder and the name of a split and returns a `Listing`; adding a data set is adding
a function to `READERS`. What a label turns into when its clip is mirrored or played backwards is part of the
listing, because that is knowledge of the labels and not of the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_export.datasets.disk import VIDEO_SUFFIXES
from model_export.datasets.folders import read_folder, read_synthetic
from model_export.datasets.kinetics import read_kinetics
from model_export.datasets.listing import Clip, Listing, Reader, Symmetry
from model_export.datasets.lists import read_list
from model_export.datasets.moments import read_moments
from model_export.datasets.something import read_v1, read_v2
from service.errors import BlvnetError

__all__ = [
    "ALIASES",
    "READERS",
    "VIDEO_SUFFIXES",
    "Clip",
    "Listing",
    "Reader",
    "Symmetry",
    "judged_split",
    "read_listing",
]

READERS: Mapping[str, Reader] = {
    "folder": read_folder,
    "synthetic": read_synthetic,
    "something-something-v1": read_v1,
    "something-something-v2": read_v2,
    "kinetics-400": read_kinetics,
    "moments-in-time": read_moments,
    "list": read_list,
}
ALIASES: Mapping[str, str] = {
    "ssv1": "something-something-v1",
    "ssv2": "something-something-v2",
    "k400": "kinetics-400",
    "mit": "moments-in-time",
}

# Whose test split has labels that everybody has; the others' figures are those of the validation split.
TESTED = frozenset({"folder", "synthetic"})


def read_listing(dataset: str, data: Path, split: str) -> Listing:
    """The clips of one split.

    Raises:
        BlvnetError: no reader has that name, or the folder does not have the layout.
    """
    name = ALIASES.get(dataset, dataset)
    if name not in READERS:
        raise BlvnetError(f"no data set {dataset!r}; there are {', '.join(sorted([*READERS, *ALIASES]))}")
    return READERS[name](data, split)


def judged_split(dataset: str) -> str:
    """The split that figures of a data set are those of."""
    return "test" if dataset in TESTED else "val"

"""Listings of labelled videos: one reader for each data set layout.

A reader takes the data set's folder and the name of a split and returns a `Listing`. To add a data set, add
its reader to `READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_export.datasets.folders import read_folder, read_synthetic
from model_export.datasets.listing import Example, Listing, Reader
from model_export.datasets.lists import read_list
from model_export.datasets.published.charades import read_charades
from model_export.datasets.published.diving48 import read_diving48
from model_export.datasets.published.jester import read_jester
from model_export.datasets.published.kinetics import read_kinetics
from model_export.datasets.published.moments import read_moments
from model_export.datasets.published.numbered_splits import numbered_readers
from model_export.datasets.published.something import read_v1, read_v2
from model_export.datasets.symmetry import Symmetry
from service.clip.decoding.formats import VIDEO_SUFFIXES
from service.errors import BlvnetError

__all__ = [
    "ALIASES",
    "READERS",
    "VIDEO_SUFFIXES",
    "Example",
    "Listing",
    "Reader",
    "Symmetry",
    "check_dataset",
    "evaluation_split",
    "read_listing",
]

READERS: Mapping[str, Reader] = {
    "folder": read_folder,
    "synthetic": read_synthetic,
    "something-something-v1": read_v1,
    "something-something-v2": read_v2,
    "kinetics-400": read_kinetics,
    "moments-in-time": read_moments,
    **numbered_readers(),
    "jester": read_jester,
    "diving48": read_diving48,
    "charades": read_charades,
    "list": read_list,
}
ALIASES: Mapping[str, str] = {
    "ssv1": "something-something-v1",
    "ssv2": "something-something-v2",
    "k400": "kinetics-400",
    "mit": "moments-in-time",
}


def read_listing(dataset: str, data: Path, split: str) -> Listing:
    """List the examples of one split.

    Raises:
        BlvnetError: no reader has that name, or the folder does not have the layout.
    """
    check_dataset(dataset)
    return READERS[ALIASES.get(dataset, dataset)](data, split)


def check_dataset(dataset: str) -> None:
    """Refuse a name that no reader has.

    Raises:
        BlvnetError: the message lists the names.
    """
    if dataset not in READERS and dataset not in ALIASES:
        raise BlvnetError(
            f"unknown data set {dataset!r}; choose one of {', '.join(sorted([*READERS, *ALIASES]))}"
        )


def evaluation_split(dataset: str) -> str:
    """The split that accuracy is reported on by default.

    The published data sets keep the labels of their test split, so their figures are those of `val`.
    """
    return "test" if dataset in ("folder", "synthetic") else "val"

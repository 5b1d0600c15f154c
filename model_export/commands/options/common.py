"""Options that several commands share."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import torch

from model_export.datasets import Listing, read_listing
from model_export.progress import ProgressReporter
from service.errors import BlvnetError


def read_split(dataset: str, data: Path, split: str, reporter: ProgressReporter) -> Listing:
    """Read a listing, and report its notes to the user.

    Raises:
        BlvnetError: as `read_listing`.
    """
    reporter.step(f"reading the list of {split} clips")
    listing = read_listing(dataset, data, split)
    if listing.missing:
        total = listing.missing + len(listing.examples)
        reporter.message(f"{listing.missing} of {total} {split} clips are missing")
    for note in listing.notes:
        reporter.message(note)
    return listing


def check_folder(file: Path) -> None:
    """Refuse a file to write whose folder does not exist, before the work whose results it is for.

    Raises:
        BlvnetError: there is no such folder.
    """
    if not file.parent.is_dir():
        raise BlvnetError(f"{file} cannot be written ({os.strerror(errno.ENOENT)})")


def select_device(name: str | None) -> torch.device:
    """Return the device of `--device`; by default a GPU if there is one.

    Raises:
        BlvnetError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise BlvnetError(f"unknown device {name!r}; use cpu or cuda") from exc
    if device.type not in ("cpu", "cuda"):
        raise BlvnetError(f"unknown device {name!r}; use cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BlvnetError("no CUDA device is available: use --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise BlvnetError(f"there is no {name}: this machine has {torch.cuda.device_count()} GPUs")
    return device

"""`blvnet data`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from model_export.datasets import Listing, check_dataset, read_listing
from model_export.datasets.files import SPLITS
from model_export.datasets.reading import Unreadable
from model_export.evaluation.reading import read_parts
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import BlvnetError

CLIP = ClipSpec(16, (InputSpec("frames", Frames.ALL, 32, 32),))  # the frames to decode of each video
NAMED_LABELS = 5  # at most, in one line


def data(
    action: Annotated[Literal["check"], typer.Argument(help="check: read every video and report problems.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.", exists=True, file_okay=False)],
    dataset: Annotated[str, typer.Option(help="Data set, or layout of your own data, as for blvnet train.")],
    jobs: Annotated[int, typer.Option(min=1, help="Decoding threads.")] = 2,
) -> None:
    """Check a data set: read every annotation and video once, and report every problem.

    The exit status is 1 if there are problems.

    Example: blvnet data check DATA --dataset folder
    """
    del action  # there is only one action
    check_dataset(dataset)
    problems = 0

    def report(text: str) -> None:
        nonlocal problems
        problems += 1
        typer.echo(text)

    with ProgressReporter() as reporter:
        listings: dict[str, Listing] = {}
        for split in SPLITS:
            try:
                listings[split] = read_listing(dataset, folder, split)
            except BlvnetError as exc:
                # Many data sets have no test split, or keep its labels.
                if split == "test":
                    reporter.message(f"no test split: {exc.message}")
                else:
                    report(f"{split}: {exc.message}")
        test = listings.get("test")
        if test is not None and "val" in listings and test.examples == listings["val"].examples:
            reporter.message("the test split is the val split")
            del listings["test"]
        for split, listing in listings.items():
            if listing.missing:
                report(f"{split}: {listing.missing} annotated videos are missing")
            for note in listing.notes:
                reporter.message(note)
            if unused := listing.unused_labels():
                more = f" and {len(unused) - NAMED_LABELS} more" if len(unused) > NAMED_LABELS else ""
                report(f"{split}: no video of {', '.join(map(repr, unused[:NAMED_LABELS]))}{more}")
            if listing.labels != next(iter(listings.values())).labels:
                report(f"{split}: other labels than those of {next(iter(listings))}")
            with reporter.count(f"reading {split} videos", len(listing.examples)) as counter:
                for part in read_parts(listing.examples, CLIP, clips=1, crops=1, jobs=jobs):
                    counter.advance()
                    if isinstance(part.inputs, Unreadable):
                        report(f"{split}: {part.inputs.path} cannot be read ({part.inputs.reason})")
        for group, names in _shared_groups(listings).items():
            report(f"the group {group!r} is in several splits: {', '.join(names)}")
        for first, second in _copies(listings):
            report(f"the same video is there twice: {first} and {second}")
    counts = ", ".join(f"{len(listing.examples)} {split}" for split, listing in listings.items())
    labels = len(next(iter(listings.values())).labels) if listings else 0
    typer.echo(f"{counts or 'no'} videos, {labels} labels, {problems} problems")
    if problems:
        raise typer.Exit(1)


def _shared_groups(listings: Mapping[str, Listing]) -> dict[str, list[str]]:
    """Groups that are in several splits, and their splits."""
    splits: dict[str, list[str]] = defaultdict(list)
    for split, listing in listings.items():
        for group in dict.fromkeys(example.group for example in listing.examples):
            if group is not None:
                splits[group].append(split)
    return {group: names for group, names in splits.items() if len(names) > 1}


def _copies(listings: Mapping[str, Listing]) -> list[tuple[Path, Path]]:
    """Pairs of equal video files: a copy in another split makes the measured accuracy too high."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for listing in listings.values():
        for example in listing.examples:
            if example.path.is_file():
                by_size[example.path.stat().st_size].append(example.path)
    copies = []
    for paths in by_size.values():
        first_of: dict[bytes, Path] = {}
        for path in paths if len(paths) > 1 else ():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in first_of:
                copies.append((first_of[digest], path))
            first_of.setdefault(digest, path)
    return copies

"""Reading a listing for a command: with a sign of life while it takes, and a word on what is missing."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from model_export.datasets import Listing, read_listing


def listing_of(dataset: str, data: Path, split: str, console: Console) -> Listing:
    """As `read_listing`; says in one line how many clips are annotated and not there."""
    with console.status(f"reading the list of {split} clips"):
        listing = read_listing(dataset, data, split)
    if listing.missing:
        total = listing.missing + len(listing.clips)
        console.print(f"{listing.missing} of {total} {split} clips are not there", highlight=False)
    return listing

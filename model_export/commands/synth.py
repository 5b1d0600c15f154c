"""`blvnet synth`: make a data set of short clips of simple motions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_export.progress import counting
from service.errors import BlvnetError

if TYPE_CHECKING:
    from model_export.synthetic.split import Split


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make; it must be new or empty.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips in all.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other clips.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    split: Annotated[
        str, typer.Option(help="Share of the clips in each split.", metavar="NAME=SHARE,...")
    ] = "train=0.88,val=0.04,test=0.08",
    only: Annotated[str | None, typer.Option(help="Make this split alone: train, val or test.")] = None,
) -> None:
    """Make short clips of simple motions: OUT/{train,val,test}/LABEL/*.mp4|webm and OUT/labels.json."""
    try:
        from model_export.synthetic import dataset
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise BlvnetError("synth draws with OpenCV: pip install 'blvnet-serve[train]'") from error
    shares = parse_shares(f"{only}=1" if only else split)
    plans = dataset.plan(clips, seed, shares)
    with counting("making clips", len(plans)) as tick:
        for _ in dataset.write_dataset(out, plans, jobs or _cores()):
            tick(1)
    labels = len({one.label for one in plans})
    typer.echo(f"{len(plans)} clips of {labels} labels in {out}")


def parse_shares(text: str) -> dict[Split, float]:
    """Shares of the splits from `train=0.9,test=0.1`; they need not add up to 1.

    Raises:
        BlvnetError: An unknown or repeated split, or a share that is no positive number.
    """
    from model_export.synthetic.split import SPLITS

    shares: dict[Split, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        known = next((one for one in SPLITS if one == name.strip()), None)
        if known is None or known in shares:
            raise BlvnetError(
                f"--split or --only: {name.strip()!r} must be one of {', '.join(SPLITS)}, and once only"
            )
        shares[known] = _share(part, value)
    if not sum(shares.values()):
        raise BlvnetError(f"--split {text!r}: at least one share must be above 0")
    return shares


def _share(part: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise BlvnetError(f"--split: {part!r} must be NAME=SHARE with a share of 0 or more, as in train=0.9")
    return share


def _cores() -> int:
    return len(os.sched_getaffinity(0))

"""`blvnet synth`: make a data set of short clips of simple motions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.errors import BlvnetError

if TYPE_CHECKING:
    from model_export.synthetic.split import Split

_PLAIN_LINES: Final = 10  # lines of progress where there is no terminal


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
    written = dataset.write_dataset(out, plans, jobs or _cores())
    for _ in _with_progress(written, len(plans)):
        pass
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


def _with_progress(items: Iterable[Path], total: int) -> Iterator[Path]:
    """Passes the items on, showing how many there were: a bar on a terminal, a few plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_lines(items, total)
        return
    columns = (TextColumn("making clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, total=total)


def _with_lines(items: Iterable[Path], total: int) -> Iterator[Path]:
    step = max(1, -(-total // _PLAIN_LINES))
    for count, item in enumerate(items, start=1):
        yield item
        if count % step == 0 or count == total:
            typer.echo(f"made {count} of {total} clips", err=True)

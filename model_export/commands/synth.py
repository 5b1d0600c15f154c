"""`blvnet synth`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_export.progress import counting
from model_export.synthetic.tasks.names import Task
from service.errors import BlvnetError
from service.installation import install_command

if TYPE_CHECKING:
    from model_export.synthetic.labels import Split

SHARES = "train=0.88,val=0.04,test=0.08"


def synth(
    out: Annotated[Path, typer.Argument(help="New or empty folder.")],
    task: Annotated[Task, typer.Option(help="What the labels say; see above.")] = Task.SIMPLE,
    clips: Annotated[int, typer.Option(min=1, help="Number of clips, in all splits.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random draws.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            help=f"Share of the clips in each split; by default {SHARES}.", metavar="NAME=SHARE,..."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Make only this split: train, val or test.")] = None,
) -> None:
    """Make short labelled clips: OUT/{train,val,test}/LABEL/*.mp4|webm and OUT/labels.json.

    Tasks: simple (22 motions), motions (the same, under harder conditions), events (the order of four short
    events, which needs a network that relates distant moments), appearance (what a moving object is), hands
    (the harder motions, made by hands), air-drawing (these and what a hand draws in the air, in bad light).

    Example: blvnet synth data/events --task events --clips 10000
    """
    try:
        from model_export.synthetic import dataset
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise BlvnetError(f"synth draws with OpenCV: {install_command('train')}") from error
    if only is not None and split is not None:
        raise typer.BadParameter("makes one split, so leave out --split", param_hint="--only")
    shares = parse_shares((SHARES if split is None else split) if only is None else f"{only}=1")
    plans = dataset.plan(clips, seed, shares, task)
    with counting("making clips", len(plans)) as tick:
        for _ in dataset.write_dataset(out, plans, jobs or len(os.sched_getaffinity(0))):
            tick(1)
    labels = len({one.label for one in plans})
    typer.echo(f"{len(plans)} clips of {labels} labels in {out}")


def parse_shares(text: str) -> dict[Split, float]:
    """Parse the shares of the splits, such as `train=0.9,test=0.1`; they need not add up to 1.

    Raises:
        BlvnetError: a split is unknown or repeated, or a share is negative or not a number.
    """
    from model_export.synthetic.labels import SPLITS

    shares: dict[Split, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        known = next((one for one in SPLITS if one == name.strip()), None)
        if known is None or known in shares:
            raise BlvnetError(
                f"--split or --only: {name.strip()!r} must be one of {', '.join(SPLITS)}, and once only"
            )
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not 0 <= share < float("inf"):
            raise BlvnetError(
                f"--split: {part!r} must be NAME=SHARE with a share of 0 or more, as in train=0.9"
            )
        shares[known] = share
    if not sum(shares.values()):
        raise BlvnetError(f"--split {text!r}: at least one share must be above 0")
    return shares

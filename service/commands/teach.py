"""`blvnet teach`: learn a model for custom labels from a folder of clips."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from service.commands.inputs.teaching_set import TeachingClip, find_labelled, read_groups
from service.commands.options import JsonOption, ModelsOption
from service.commands.output.progress import reporting
from service.commands.output.teaching_report import print_report
from service.errors import PackageError, RequestError
from service.offline import OfflineBase, offline_base
from service.packages.folders import NAME_PATTERN, NAME_RULE
from service.packages.manifest import Manifest
from service.packages.taught import check_taught_name, write_taught
from service.settings import load_settings
from service.teaching.examples import Examples, check_set
from service.teaching.learning.learn import Taught, learn, validated

DEFAULT_OUT = Path("models")


@dataclass(frozen=True)
class LeftOutClip:
    """A clip that could not be read."""

    clip: str
    reason: str


def teach(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of clips, LABEL/*.mp4 or {train,val}/LABEL/*.mp4.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the new model.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Model whose features to use. Default: the first that has them."),
    ] = None,
    models: ModelsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of packages to write to. Default: that of --models, or ./models."
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file of clip and group (a person, a place, a day). Groups are left out as a whole to"
            " measure the accuracy. Default: each clip is its own.",
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Labelled clips to validate on. Default: DATA/val, if there is one."
        ),
    ] = None,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Learn from mirror images too; labels with left and right swap. Do not use it if mirroring"
            " changes the meaning otherwise.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a model your own labels from a few clips of each.

    The new package serves with its base, which is bundled or must be in the same folder of packages. Clips
    that cannot be read are named and left out.

    Example: blvnet teach clips/ --name gestures
    """
    started_s = time.monotonic()
    if not NAME_PATTERN.fullmatch(name):
        raise PackageError(f"the name of a model must be {NAME_RULE}; it is {name!r}")
    clips, val_clips = find_labelled(data, val)
    check_set([clip.label for clip in clips])
    group_of = None if groups is None else dict(zip(clips, read_groups(groups, clips), strict=True))
    left_out: list[LeftOutClip] = []
    with offline_base(load_settings({"models": models}), base) as model:
        manifest = model.manifest
        check_taught_name(name, manifest)
        features = _read(model, clips, left_out, mirrored=mirror)
        val_features = _read(model, val_clips, left_out, all_views=False)
    if left_out:  # too few clips may remain
        check_set([clip.label for clip in features])
    kept_groups = None if group_of is None else [group_of[clip] for clip in features]
    examples = _examples(features, kept_groups, mirrored=mirror)
    with reporting("learning:", "%") as report:
        taught = learn(examples, lambda share, text: report(round(100 * share), 100, text))
    if val_features:
        taught = validated(taught, _examples(val_features, None, mirrored=False))
    destination = out or models or DEFAULT_OUT
    package = write_taught(destination, name, manifest, taught)
    folder = destination / name / str(package.version)
    seconds = round(time.monotonic() - started_s, 1)
    if as_json:
        document = _document(package, taught, folder, left_out, seconds)
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    print_report(taught.report)
    for clip in left_out:
        typer.echo(f"left out: {clip.clip}: {clip.reason}", err=True)
    typer.echo(
        f"\n{folder}: {len(taught.labels)} labels, {len(features)} clips, base {package.base}, {seconds} s"
        f"\nserve it: blvnet serve --models {destination}"
    )


def _read(
    model: OfflineBase, clips: Sequence[TeachingClip], left_out: list[LeftOutClip], **views: bool
) -> dict[TeachingClip, NDArray[np.float32]]:
    """The features of each clip that can be read; the others are added to `left_out`.

    `views` are options of `OfflineBase.features`.
    """
    found: dict[TeachingClip, NDArray[np.float32]] = {}
    with reporting("read", "clips") as report:
        results = model.features([clip.path for clip in clips], **views)
        for done, (clip, (_, result)) in enumerate(zip(clips, results, strict=True), start=1):
            if isinstance(result, RequestError):
                left_out.append(LeftOutClip(clip.name, f"{result.code}: {result.message}"))
            else:
                found[clip] = result
            report(done, len(clips), "")
    return found


def _examples(
    features: dict[TeachingClip, NDArray[np.float32]], groups: Sequence[str] | None, *, mirrored: bool
) -> Examples:
    return Examples(
        features=np.stack(list(features.values())),
        labels=[clip.label for clip in features],
        names=[clip.name for clip in features],
        groups=groups,
        mirrored=mirrored,
    )


def _document(
    package: Manifest, taught: Taught, folder: Path, left_out: Sequence[LeftOutClip], seconds: float
) -> dict[str, Any]:
    """The document of `--json`."""
    assert package.base is not None
    return {
        "name": package.name,
        "version": package.version,
        "package": str(folder),
        "base": package.base.model_dump(),
        "labels": list(package.labels),
        "threshold": package.threshold,
        "report": taught.report.to_json(),
        "left_out": [vars(clip) for clip in left_out],
        "seconds": seconds,
    }

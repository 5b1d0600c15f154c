"""Pictures of the study, drawn from its results; a picture without results is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.study.plan import REAL, Row
from benchmarks.study.results import Result, Results, top1
from benchmarks.study.statistics import mean_interval
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS

GMACS, FRAMES, CURVES, CONFUSION = (
    f"study-{name}.png" for name in ("gmacs", "frames", "curves", "confusion")
)
COLOURS: Final = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
PERCENT: Final = 100
# Suffix of a row's name -> description of its training.
WAYS: Final = {
    "": "equal passes",
    "-progressive": "progressively",
    "-equal-gmacs": "equal GMACs of training",
}

Judged = dict[Row, list[Result]]


def draw_pictures(plan: Sequence[Row], done: Results, folder: Path) -> None:
    """Draw the pictures to `folder`, a panel for each group of rows that has results."""
    judged = {row: found for row in plan if (found := done.judged(row))}
    every_run = {row: found for row in plan if (found := done.of(row))}
    pictures: dict[str, tuple[Callable[[Axes, Judged], None], Judged, tuple[str, ...]]] = {
        GMACS: (against_gmacs, judged, (Task.EVENTS, Task.MOTIONS, Task.APPEARANCE)),
        FRAMES: (against_frames, judged, ("frames",)),
        CURVES: (learning_curves, every_run, (Task.EVENTS, "frames", Task.MOTIONS, Task.APPEARANCE, REAL)),
        CONFUSION: (within_pairs, judged, (Task.EVENTS, Task.MOTIONS)),
    }
    for name, (draw, results, groups) in pictures.items():
        panels = {group: of for group in groups if (of := _of_group(results, group, name))}
        if not panels:
            continue
        figure = Figure(figsize=(5.2 * len(panels), 5.6), layout="constrained")
        for axes, (group, of) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            draw(axes, of)
            axes.set_title(group)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        figure.savefig(folder / name, dpi=80)


def _of_group(results: Judged, group: str, picture: str) -> Judged:
    """The results of a group; the group of frames includes the rows with the usual number of frames."""
    usual = ("events/blvnet-tam", "events/tsn") if picture == FRAMES else ()
    if not any(row.group == group for row in results):
        return {}
    return {row: found for row, found in results.items() if row.group == group or row.name in usual}


def against_gmacs(axes: Axes, results: Judged) -> None:
    """Test top-1 of each network over its multiply-accumulates, with the interval of the seeds."""
    for index, (row, found) in enumerate(results.items()):
        interval = mean_interval(top1(found))
        half = PERCENT * (interval.high - interval.mean) if interval.count > 1 else 0.0
        axes.errorbar(
            [found[0]["gmacs"]],
            [PERCENT * interval.mean],
            yerr=[half],
            fmt="osD^v<>PX*hp"[index % 12],
            capsize=3,
            color=COLOURS[index % len(COLOURS)],
            label=row.network,
        )
    axes.set(xscale="log", xlabel="GMACs of a clip", ylabel="test top-1, %", ylim=(0, PERCENT))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))  # more would overlap
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def against_frames(axes: Axes, results: Judged) -> None:
    """Test top-1 over T, a line for each network and way of training."""
    for network in ("blvnet-tam", "tsn"):
        for end, way in WAYS.items():
            # The row with the usual number of frames is on every line except that of progressive training.
            names = {f"frames/{network}-{frames}{end}" for frames in (4, 8, 16, 32)}
            names |= set() if end == "-progressive" else {f"events/{network}"}
            line = sorted(
                (row.frames, PERCENT * mean_interval(top1(found)).mean)
                for row, found in results.items()
                if row.name in names
            )
            if len(line) > 1:
                axes.plot(*zip(*line, strict=True), marker="o", label=f"{network}, {way}")
    axes.set(xscale="log", xlabel="frames", ylabel="test top-1, %", ylim=(0, PERCENT))
    axes.set_xticks([4, 8, 16, 32], labels=["4", "8", "16", "32"])
    axes.minorticks_off()


def learning_curves(axes: Axes, results: Judged) -> None:
    """Validation top-1 of every run, including those with learning rates that were not chosen."""
    for number, (row, found) in enumerate(results.items()):
        for index, result in enumerate(found):
            axes.plot(
                [point[0] for point in result["curve"]],
                [PERCENT * point[2] for point in result["curve"]],
                color=COLOURS[number % len(COLOURS)],
                linewidth=0.9,
                label=row.network if index == 0 else None,
            )
    axes.set(xlabel="step", ylabel="validation top-1, %", ylim=(0, PERCENT))


def within_pairs(axes: Axes, results: Judged) -> None:
    """Shares of test clips that got their label, the label of the reversed clip, and any other one."""
    names = [row.network for row in results]
    shares = [pair_shares(found, row.task) for row, found in results.items() if row.task is not None]
    left = [0.0] * len(names)
    for index, part in enumerate(("right", "label of the reversed clip", "other")):
        widths = [PERCENT * share[index] for share in shares]
        axes.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("test clips, %")


def pair_shares(found: Sequence[Result], task: Task) -> tuple[float, float, float]:
    """Shares of clips given the true label, that of the reversed clip, and another, over all seeds.

    Labels that are their own reverse are left out.
    """
    spec = TASKS[task]
    position = {label: index for index, label in enumerate(spec.labels)}
    right = opposite = count = 0
    for result in found:
        for index, letter in enumerate(result["predictions"]):
            truth = index % len(spec.labels)
            reverse = position[spec.reversed[spec.labels[truth]]]
            if reverse == truth:
                continue
            count += 1
            right += ord(letter) - ord("A") == truth
            opposite += ord(letter) - ord("A") == reverse
    return right / count, opposite / count, (count - right - opposite) / count

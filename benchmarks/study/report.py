"""Writes docs/study.md from the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import median

from benchmarks.common.report import table
from benchmarks.study import pictures
from benchmarks.study.latency import network_of, read_latencies
from benchmarks.study.plan import (
    APPEARANCE_EPOCHS,
    APPEARANCE_FRAMES,
    EPOCHS,
    FRAMES,
    RATES,
    REAL,
    REAL_EPOCHS,
    RESNET_EPOCHS,
    RESNET_FRAMES,
    SIZE,
    Row,
)
from benchmarks.study.results import Result, Results, top1
from benchmarks.study.runs import APPEARANCE_BATCH, FULL, REAL_BATCH
from benchmarks.study.statistics import (
    Compared,
    ContrastVerdict,
    Interval,
    compare,
    contrasts,
    mean_interval,
    steps_to_half,
)
from model_export.synthetic.tasks.events import ORDERS

QUESTIONS = {
    "1": "Does the big-little network match 3D and plain 2D networks at a fraction of their cost?",
    "2": "What does TAM add to fusion within a pair of frames?",
    "3": "What do more frames bring, and at what cost?",
    "4": "Is TAM better than a temporal shift?",
    "stem": "What does the dual stem change, compared with the paper's shared one?",
    "taps": "How many taps does TAM need?",
}
GROUPS = {
    "events": "Order of four short events: 24 labels, chance 4.2 %",
    "frames": "The same with other numbers of frames",
    "motions": "Motions under hard conditions: 22 labels, chance 4.5 %",
    "appearance": "Which outline an object has: 12 labels, chance 8.3 %",
}
VERBS = {
    ContrastVerdict.AGREES: ("agrees", "agree"),
    ContrastVerdict.DISAGREES: ("disagrees", "disagree"),
    ContrastVerdict.UNDECIDED: ("is undecided", "are undecided"),
}
COMMAND = "python -m benchmarks.study"
TEXT = Path(__file__).with_name("text")  # the parts of the page that do not depend on results


def page_text(plan: Sequence[Row], done: Results, folder: Path) -> str:
    """The page, with the pictures that are in `folder`."""
    judged = {row.name: done.judged(row) for row in plan}
    compared = compare(contrasts(), judged)
    parts = [
        method(),
        disagreements(compared),
        answers(compared, judged),
        at_chance(judged),
        *(group_table(name, title, plan, done) for name, title in GROUPS.items()),
        picture_links(folder),
        contrast_table(compared),
        real_footage(plan, judged),
        f"## Objections\n\n{_text('objections')}",
        f"## The bundled network\n\n{_text('recipe')}",
        not_run(plan, done),
    ]
    return "\n".join(filter(None, parts))


def method() -> str:
    """The method of the study, with its budgets."""
    return _text("method").format(
        command=COMMAND,
        size=SIZE,
        examples=FULL.train.examples,
        looks=FULL.train.examples * FULL.train.takes // len(ORDERS),
        takes=FULL.train.takes,
        tested=FULL.test.examples,
        epochs=EPOCHS,
        steps=FULL.train.examples // FULL.batch,
        batch=FULL.batch,
        frames=FRAMES,
        resnet_epochs=RESNET_EPOCHS,
        resnet_frames=RESNET_FRAMES,
        appearance_epochs=APPEARANCE_EPOCHS,
        appearance_steps=FULL.train.examples // APPEARANCE_BATCH,
        appearance_batch=APPEARANCE_BATCH,
        appearance_frames=APPEARANCE_FRAMES,
        rates=", ".join(f"{rate:g}" for rate in sorted(RATES)),
    )


def disagreements(compared: Sequence[Compared]) -> str:
    """The contrasts whose verdict is against the paper, and the number of the others."""
    against = [item for item in compared if item.verdict is ContrastVerdict.DISAGREES]
    open_ones = sum(item.verdict is ContrastVerdict.UNDECIDED for item in compared)
    waiting = sum(item.verdict is ContrastVerdict.NOT_RUN for item in compared)
    agree = sum(item.verdict is ContrastVerdict.AGREES for item in compared)
    lines = [
        f"- {item.contrast.says} (`{item.contrast.left}`, `{item.contrast.right}`): "
        f"{_points(item.difference)}."
        for item in against
    ]
    found = "\n".join(lines) if lines else "No contrast that has run."
    left = f", and {waiting} are not run yet" if waiting else ""
    return f"""## What disagrees with the paper

{found}

Of {len(compared)} contrasts, {len(against)} disagree, {agree} agree, {open_ones} are undecided{left}.
"""


def answers(compared: Sequence[Compared], judged: dict[str, list[Result]]) -> str:
    """For each question a sentence with its numbers, and a line for each contrast that ran."""
    parts = ["## Answers\n"]
    for question, text in QUESTIONS.items():
        asked = [item for item in compared if item.contrast.question == question]
        ready = [item for item in asked if item.difference is not None]
        parts.append(f"**{text}** {answer(asked, judged) if ready else 'Not run yet.'}\n")
        if ready:
            parts.append("\n".join(f"- {sentence(item, judged)}" for item in ready) + "\n")
    return "\n".join(parts)


def answer(asked: Sequence[Compared], judged: dict[str, list[Result]]) -> str:
    """The answer to a question in one sentence, from the contrasts that ran."""
    ready = [item for item in asked if item.difference is not None]
    counts = {one: sum(item.verdict is one for item in ready) for one in VERBS}
    if counts[ContrastVerdict.AGREES] == len(asked):
        found = "As the paper says"
    elif counts[ContrastVerdict.AGREES]:
        found = "Partly as the paper says"
    else:
        found = "Against the paper" if counts[ContrastVerdict.DISAGREES] else "Not decided"
    named = ", ".join(f"{count} {VERBS[one][count > 1]}" for one, count in counts.items() if count)
    waiting = f", {len(asked) - len(ready)} not run yet" if len(ready) < len(asked) else ""
    points = _range([f"{100 * item.difference.mean:+.1f}" for item in ready if item.difference is not None])
    ratios = _range([f"{gmacs_ratio(item, judged):.2f}" for item in ready])
    return (
        f"{found}: of {len(asked)} contrasts, {named}{waiting}. The differences are {points} points, at "
        f"{ratios} times the multiply-accumulates."
    )


def gmacs_ratio(item: Compared, judged: dict[str, list[Result]]) -> float:
    """Multiply-accumulates of the left network, as a multiple of those of the right one."""
    left, right = (float(judged[name][0]["gmacs"]) for name in (item.contrast.left, item.contrast.right))
    return left / right


def sentence(item: Compared, judged: dict[str, list[Result]]) -> str:
    """One contrast with its means, its difference and the ratio of multiply-accumulates."""
    names = (item.contrast.left, item.contrast.right)
    left, right = (f"{mean_interval(top1(judged[name])).mean:.1%} (`{name}`)" for name in names)
    return (
        f"{item.contrast.says}: {left} against {right}, {_points(item.difference)}, at "
        f"{gmacs_ratio(item, judged):.2f} times the multiply-accumulates: {item.verdict}"
    )


def at_chance(judged: dict[str, list[Result]]) -> str:
    """Whether chance is within the intervals of the networks that should be at chance."""
    names = [name for name in ("events/tsn", "events/blvnet") if judged[name]]
    if not names:
        return ""
    lines = []
    for name in names:
        interval = mean_interval(top1(judged[name]))
        chance = 1 / judged[name][0]["labels"]
        if interval.count < 2:
            lines.append(f"- `{name}`: {_share(interval)}; chance is {chance:.2%}. One seed has no interval.")
            continue
        inside = abs(interval.mean - chance) < 1e-9 or interval.low <= chance <= interval.high
        lines.append(
            f"- `{name}`: {_share(interval)}; chance, {chance:.2%}, is "
            f"{'within' if inside else 'outside'} the interval."
        )
    return (
        "**Networks that cannot relate distant moments.** For a seed of the data, all 24 labels have the "
        "same frames, and the same pairs of\nframes. So a network without a temporal module gives them the "
        "same logits, up to rounding.\n\n" + "\n".join(lines) + "\n"
    )


def group_table(name: str, title: str, plan: Sequence[Row], done: Results) -> str:
    """The results of a group's rows."""
    head = (
        "row",
        "T",
        "top-1",
        "seeds",
        "learning rate",
        "steps to half",
        "GMACs",
        "training MB",
        "latency ms",
    )
    latencies = read_latencies(done.folder)
    lines = []
    for row in plan:
        found = done.judged(row)
        if row.group != name or not found:
            continue
        halves = [steps_to_half(result) for result in found]
        reached = [half for half in halves if half is not None]
        middle = median(reached) if reached else None
        lines.append(
            (
                f"`{row.name}`",
                f"{row.frames}",
                _share(mean_interval(top1(found))),
                f"{len(found)} of {row.seeds}",
                f"{found[0]['rate']:g}",
                "never" if middle is None else f"{middle:g} ({len(reached)} of {len(found)})",
                f"{found[0]['gmacs']:.3f}",
                f"{found[0]['training_mb']:.1f}",
                f"{latencies[network_of(row)]:.1f}" if network_of(row) in latencies else "-",
            )
        )
    text = table(head, lines) if lines else "Not run yet.\n"
    return f"## {title}\n\n{text}"


def picture_links(folder: Path) -> str:
    """The meaning of the columns, and the pictures that are in the folder."""
    titles = {
        pictures.GMACS: "Accuracy against GMACs",
        pictures.FRAMES: "Accuracy against frames",
        pictures.CURVES: "Learning curves of all runs, also of the learning rates that were not chosen",
        pictures.CONFUSION: "Test clips given the true label, the label of the reversed clip, or another",
    }
    lines = [f"![{title}]({name})\n" for name, title in titles.items() if (folder / name).exists()]
    columns = (
        'GMACs are those of `blvnet profile`; "training MB" are activations of a training step for one clip. '
        "Latency is the time of\na clip in eager PyTorch with one thread, measured in turns with the other "
        "networks (`python -m benchmarks.study --latency`).\nSteps to half: where validation first is half "
        "of the way from chance to 100 %, the median of the seeds that reach it.\n"
    )
    return "\n".join([columns, *lines])


def contrast_table(compared: Sequence[Compared]) -> str:
    """All contrasts."""
    head = ("left", "right", "paper", "difference, points", "p (Holm)", "paired p of each seed", "verdict")
    lines = [
        (
            f"`{item.contrast.left}`",
            f"`{item.contrast.right}`",
            "left better" if item.contrast.paper == "left" else item.contrast.paper,
            _points(item.difference),
            "" if item.p is None else f"{item.p:.3g}",
            ", ".join(f"{value:.2g}" for value in item.per_seed),
            str(item.verdict),
        )
        for item in compared
    ]
    return f"## Contrasts\n\n{table(head, lines)}"


def real_footage(plan: Sequence[Row], judged: dict[str, list[Result]]) -> str:
    """The results on real footage."""
    rows = [row for row in plan if row.group == REAL and judged[row.name]]
    groups = sorted(
        {group for row in rows for result in judged[row.name] for group in result["top1_by_group"]}
    )
    columns: dict[str, Callable[[Result], float]] = {
        "forward": itemgetter("top1"),
        **{f"group {group}": partial(_of_group, group) for group in groups},
        "frames shuffled": itemgetter("shuffled_top1"),
        "middle frame alone": itemgetter("middle_top1"),
        "swipes backwards": itemgetter("backwards_opposite"),
    }
    lines = [
        (
            f"`{row.network}`",
            f"{len(judged[row.name])}",
            *(_share(mean_interval([*map(value, judged[row.name])])) for value in columns.values()),
        )
        for row in rows
    ]
    command = f"`{COMMAND} --rows 'real/*' --gestures DIR`"
    text = _text("real").format(epochs=REAL_EPOCHS, batch=REAL_BATCH) + "\n"
    shown = table(("network", "seeds", *columns), lines) if lines else f"Not run yet: {command}.\n"
    return f"## Real footage\n\n{text}{shown}"


def not_run(plan: Sequence[Row], done: Results) -> str:
    """The rows that lack seeds, with the commands that run them; empty if there are none."""
    lines = []
    for row in plan:
        judged, runs = len(done.judged(row)), len(done.of(row))
        if judged >= row.seeds:
            continue
        gestures = " --gestures DIR" if row.task is None else ""
        state = f"{judged} of {row.seeds} seeds, {runs} runs"
        lines.append(f"- `{COMMAND} --rows {row.name}{gestures}` ({state})")
    if not lines:
        return ""
    text = "\n".join(lines)
    if not any(done.of(row) for row in plan):
        text = (
            "No run is complete, so it is not known yet whether the budget is enough to leave chance on "
            f"`events`.\nThe first row shows it; `EPOCHS` in `benchmarks/study/plan.py` sets the budget."
            f"\n\n{text}"
        )
    return f"## Not run yet\n\n{text}\n"


def _of_group(group: str, result: Result) -> float:
    return float(result["top1_by_group"][group])


def _text(name: str) -> str:
    return (TEXT / f"{name}.md").read_text(encoding="utf-8")


def _share(interval: Interval) -> str:
    if interval.count < 2:
        return f"{interval.mean:.1%}"
    return f"{interval.mean:.1%} ({max(0.0, interval.low):.1%} to {min(1.0, interval.high):.1%})"


def _range(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"


def _points(difference: Interval | None) -> str:
    if difference is None:
        return ""
    return (
        f"{100 * difference.mean:+.1f} points ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    )

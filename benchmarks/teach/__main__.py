"""Accuracy of models taught from few clips, and the time it takes: `python -m benchmarks.teach [DATA]`.

| row | what is measured |
|---|---|
| `clips` | `blvnet teach DATA` on the bundled base, and top-1 from 5 and 10 clips of each label |
| `unseen` | the same on motions that a base trained here never saw as labels |
| `deep` | a base of 50 layers with random weights |
| `swipes` | the bundled network as it is, on the folders `left`, `right`, `up` and `down` of DATA |
| `groups` | top-1 on the clips of each group in turn, learned from the clips of the others |

DATA has the folders `train` and `val` of labels; without it the rows `clips`, `swipes` and `groups` are left
out, and `groups` without a file of groups. Rows that are not measured stay unchanged in the result files.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import report
from benchmarks.teach.few_clips import FEW, measure, measure_groups, read_features
from benchmarks.teach.swipes import label_swipes
from benchmarks.teach.unseen import accuracy_of_base, blvnet, deep_base, fading_clips, motions, trained_base

NAME = "teach"


class ResultRow(StrEnum):
    """A row of the results."""

    CLIPS = "clips"
    UNSEEN = "unseen"
    DEEP = "deep"
    SWIPES = "swipes"
    GROUPS = "groups"


def main(
    data: Annotated[Path | None, typer.Argument(help="Folder with train/LABEL and val/LABEL.")] = None,
    groups: Annotated[Path | None, typer.Option(help="CSV file with the group of each clip of DATA.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of the base of the row groups, instead of the bundled one.")
    ] = None,
    rows: Annotated[list[ResultRow] | None, typer.Option("--row", help="Measure only this row.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each number of clips.")] = 10,
    clips: Annotated[int, typer.Option(min=110, help="Clips of `blvnet synth`.")] = 6600,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training of the base.")] = 40,
    quick: Annotated[bool, typer.Option("--quick", help="660 clips and 4 epochs.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure, and write the tables."""
    chosen = set(rows or ResultRow) - (set() if data else {ResultRow.CLIPS, ResultRow.SWIPES})
    if data is None or groups is None:
        chosen.discard(ResultRow.GROUPS)
    if quick:
        clips, epochs = 660, 4
    load_before = os.getloadavg()[0]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if ResultRow.CLIPS in chosen and data is not None:
            found[ResultRow.CLIPS] = taught(data, None, folder) | measure(
                read_features(data, None, None), draws
            )
        if ResultRow.UNSEEN in chosen:
            seen, unseen = motions(folder, clips)
            models = trained_base(seen, folder, epochs)
            found[ResultRow.UNSEEN] = (
                {"base_top1": accuracy_of_base(models, seen), "base_clips": clips, "base_epochs": epochs}
                | taught(unseen, models, folder)
                | measure(read_features(unseen, models, "base"), draws)
            )
        if ResultRow.DEEP in chosen:
            found[ResultRow.DEEP] = taught(fading_clips(folder, 5), deep_base(folder), folder)
        if ResultRow.SWIPES in chosen and data is not None and (swipes := label_swipes(data)):
            found[ResultRow.SWIPES] = swipes
        if ResultRow.GROUPS in chosen and data is not None:
            found[ResultRow.GROUPS] = measure_groups(read_features(data, models, None, groups), draws)
    machine = report.machine() | {"load_before": round(load_before, 1)}
    file = out / f"{NAME}.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    document |= {row: found[row] | {"machine": machine} for row in found}
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def taught(data: Path, models: Path | None, folder: Path) -> dict[str, Any]:
    """Run `blvnet teach` and return its accuracies and costs."""
    options = ["--models", models, "--base", "base"] if models else []
    before, start = _children_cpu_s(), time.monotonic()
    answer = json.loads(
        blvnet("teach", data, "--name", "taught", "--out", folder / f"out-{data.name}", *options, "--json")
    )
    found = answer["report"]
    validation = found["validation"] or {"accuracy": None}
    return {
        "base": f"{answer['base']['name']}/{answer['base']['version']}",
        "labels": len(answer["labels"]),
        "clips": found["accuracy"]["clips"],
        "seconds": round(time.monotonic() - start, 1),
        "cpu_s": round(_children_cpu_s() - before, 1),
        "cross_validated": found["accuracy"],
        "validated": validation["accuracy"],
    }


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def as_text(document: dict[str, Any]) -> str:
    """The results as Markdown."""
    heads = {
        ResultRow.CLIPS: "Clips of the given folder, on the bundled base",
        ResultRow.UNSEEN: "Motions that the base never saw as labels",
        ResultRow.DEEP: "A base of 50 layers with random weights",
    }
    parts = []
    for row, title in heads.items():
        if row not in document:
            continue
        found = document[row]
        lines = [
            ("`blvnet teach`, seconds", f"{found['seconds']} ({found['cpu_s']} of processor time)"),
            (f"cross-validated, {found['clips']} clips", _percent(found["cross_validated"]["top1"])),
        ]
        if found["validated"]:
            lines.append(
                (f"{found['validated']['clips']} validation clips", _percent(found["validated"]["top1"]))
            )
        if "base_top1" in found:
            lines.insert(0, ("the base on its own labels", _percent(found["base_top1"])))
        for size, means in found.items():
            if size.endswith(" clips a label"):
                lines += [
                    (f"{size}, {where}, mean of {found['draws']} draws", _percent(value))
                    for where, value in means.items()
                    if value is not None
                ]
        machine = found["machine"]
        parts.append(
            f"{title}, {found['labels']} labels:\n\n{report.table(('', 'top-1'), lines)}"
            f"\n{report.described_machine(machine)} The load of the machine before the start was"
            f" {machine['load_before']}.\n"
        )
    if (swipes := document.get(ResultRow.SWIPES)) is not None:
        lines = [
            ("among all labels", _percent(swipes["all labels"])),
            ("among the four moves", _percent(swipes["four moves"])),
            ("higher than the opposite move", _percent(swipes["direction"])),
        ]
        parts.append(
            f"The bundled network as it is, on {swipes['clips']} swipes of the given folder:\n\n"
            f"{report.table(('the right label', 'share'), lines)}"
            f"\n{report.described_machine(swipes['machine'])}\n"
        )
    if (found := document.get(ResultRow.GROUPS)) is not None:
        few = f"{FEW} clips a label"
        shares = [
            (group, str(of["clips"]), _percent(of["all"]), _percent(of[few]))
            for group, of in found["groups"].items()
        ]
        head = ("group", "clips", "learned from all others", f"from {few}, mean of {found['draws']} draws")
        parts.append(
            "Each group of the given folder, learned from clips of the other groups:\n\n"
            f"{report.table(head, shares)}\n{report.described_machine(found['machine'])}\n"
        )
    return "\n".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    typer.run(main)

"""The log of a training run: `RUN/log.jsonl`, one JSON object a line, and `RUN/curves.png` drawn from it.

Lines have `kind`: `start` (the whole configuration), `step` (`step`, `epoch`, `loss`, `lr`, `clips_per_s`),
`epoch` (`step`, `epoch`, `validation_loss`, `validation_top1`, `elapsed_s`), `unreadable` (`path`, `reason`),
`resume` (as `start`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"

Line = dict[str, Any]


class RunLog:
    """Appends lines to the log of `run`.

    Args:
        run: the run's folder.
        resume_at: keep the lines up to this step (what came after it will happen again); None starts afresh.
    """

    def __init__(self, run: Path, resume_at: int | None) -> None:
        self.path = run / LOG_FILE
        kept = [] if resume_at is None else [line for line in read_log(run) if line["step"] <= resume_at]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def add(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; it is in the file when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def read_log(run: Path) -> list[Line]:
    """The lines so far; a line that a crash cut short is left out."""
    path = run / LOG_FILE
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def plot_curves(run: Path) -> Path:
    """Draw loss, learning rate and validation accuracy over steps to `RUN/curves.png`."""
    lines = read_log(run)
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([s["step"] for s in steps], [s["loss"] for s in steps], linewidth=0.7, label="training loss")
    loss.plot([e["step"] for e in epochs], [e["validation_loss"] for e in epochs], label="validation loss")
    rate = loss.twinx()
    rate.plot([s["step"] for s in steps], [s["lr"] for s in steps], color="grey", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    loss.set(xlabel="step", ylabel="cross-entropy")
    loss.legend()
    top1 = [100 * e["validation_top1"] for e in epochs]
    accuracy.plot([e["step"] for e in epochs], top1, marker="o")
    accuracy.set(xlabel="step", ylabel="validation top-1, %", ylim=(0, 100))
    accuracy.grid(alpha=0.3)
    path = run / CURVES_FILE
    figure.savefig(path, dpi=110)
    return path

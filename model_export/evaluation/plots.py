"""The picture of a confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_export.evaluation.accuracy import Evaluation
from service.errors import BlvnetError

MAX_NAMED_LABELS = 60  # above this, the picture of the confusion matrix has no room for names
UNNAMED_INCHES = 14.0


def check_picture_name(path: Path) -> None:
    """Refuse a picture with a suffix that matplotlib cannot write.

    Raises:
        BlvnetError: matplotlib cannot write it.
    """
    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix and path.suffix[1:].lower() not in known:
        raise BlvnetError(f"{path}: pictures are {', '.join(known)} files; choose one of them, such as .png")


def plot_confusion(result: Evaluation, path: Path) -> None:
    """Draw the confusion matrix: rows are true labels, columns given ones, in % of the row."""
    totals = np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    share = 100 * result.confusion / totals
    named = len(result.labels) <= MAX_NAMED_LABELS
    longest = max(map(len, result.labels))
    side = max(4.0, 0.38 * len(result.labels) + 3 + 0.07 * max(0, longest - 40)) if named else UNNAMED_INCHES
    figure = Figure(figsize=(side, side), layout="constrained")
    axes: Axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if named:
        ticks = range(len(result.labels))
        # A label with two dollar signs is no formula.
        axes.set_xticks(ticks, result.labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(ticks, result.labels, fontsize=8, parse_math=False)
        for row, column in zip(*np.nonzero(result.confusion), strict=True):
            colour = "white" if share[row, column] > 50 else "black"
            text = f"{share[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set(xlabel="given label", ylabel="true label")
    axes.set_title(f"top-1 {100 * result.top1_accuracy:.1f} % of {result.examples} clips")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

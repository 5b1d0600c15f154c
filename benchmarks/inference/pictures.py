"""Figures of the inference benchmark: latency against difference, and time per operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")  # works without a display
from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

from benchmarks.inference.report import MS, Network, latency_s, most_costly

LATENCY, OPERATORS = "inference-latency.png", "inference-operators.png"
DPI = 110
SMALLEST_DIFFERENCE = 1e-7  # for the logarithmic axis; the difference of the reference itself is 0
SHOWN_OPERATORS = 9


def draw(name: str, network: Network, folder: Path) -> None:
    """Write both figures of a network to `folder`."""
    _latency(name, network, folder / LATENCY)
    _operators(name, network["operators"], folder / OPERATORS)


def _latency(name: str, network: Network, path: Path) -> None:
    """Latency against difference of the logits, for all workloads on all cores."""
    threads = max(entry["threads"] for entry in network["results"])
    figure, axes = plt.subplots(figsize=(8, 5))
    for entry in network["results"]:
        seconds = latency_s(entry)
        if entry["threads"] != threads or seconds is None or entry["agreement"] is None:
            continue
        difference = max(entry["agreement"]["difference"] or 1.0, SMALLEST_DIFFERENCE)
        axes.plot(seconds * MS, difference, "o", label=f"{entry['contender']}: {seconds * MS:.0f} ms")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="latency of one clip, ms",
        ylabel="largest difference of a logit from eager PyTorch",
    )
    axes.set_title(f"{name}, {threads} threads")
    axes.set_ylim(SMALLEST_DIFFERENCE / 2, 1)
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(ScalarFormatter())
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small", loc="best")
    _save(figure, path)


def _operators(name: str, profiles: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """One bar per graph, divided by operator."""
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.7 * len(profiles)))
    shown = most_costly(profiles, SHOWN_OPERATORS)
    labels = ["plain export" if graph == "plain" else f"{graph} graph" for graph in profiles]
    ends = [0.0] * len(profiles)
    for operator in (*shown, None):
        lengths = [
            MS
            * (
                sum(profile.values()) - sum(profile.get(one, 0.0) for one in shown)
                if operator is None
                else profile.get(operator, 0.0)
            )
            for profile in profiles.values()
        ]
        axes.barh(labels, lengths, left=ends, label=operator or "others")
        ends = [end + length for end, length in zip(ends, lengths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("one clip in onnxruntime, ms")
    axes.set_title(f"{name}: time per operator")
    axes.legend(fontsize="x-small", ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)

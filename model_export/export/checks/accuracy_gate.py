"""The accuracy gate of int8 graphs: the float graph and the rounded one on the same clips, label by label.

Both graphs label every clip, so the comparison is paired: with b clips that only the float graph labels
right and c that only the rounded one does, the top-1 of n clips drops by (b - c) / n. The gate passes a graph
whose drop is below the limit with 95 % confidence (the one-sided score test of Tango, Statistics in Medicine
17, 1998), so chance passes a graph that loses more in one of twenty exports. Passing takes a minimum number
of clips even if no label changes: 539 for half a point. A clip with several labels is labelled right if the
best label is one of them. The agreement of the labels always has its own limit; without labelled clips, only
the agreement can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.export.calibration import Clip, ExampleSet, LabelledClip, labelled_clips
from model_export.export.checks.parity import open_graph
from model_export.export.precision import AccuracyLimits
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec
from service.errors import BlvnetError
from service.packages.manifest import LOGITS

Z = 1.6449  # standard normal quantile of one-sided 95 % confidence
BISECTIONS = 40

LogitsFunction = Callable[[Mapping[str, NDArray[np.uint8]]], NDArray[np.float32]]
"""Input name -> uint8 (1, T_b, size, size, 3), to logits (1, C)."""


class AccuracyError(BlvnetError):
    """A rounded graph that may lose more than the limit."""


@dataclass(frozen=True)
class LabelComparison:
    """A comparison of the float graph and a rounded one, in numbers of clips.

    Attributes:
        clips: all clips.
        agreeing: clips with the same label from both graphs.
        labelled: clips of known class.
        right_float: labelled clips that the float graph labels right.
        losses: labelled clips that only the float graph labels right.
        gains: labelled clips that only the rounded graph labels right.
        limits: the limits for the comparison.
    """

    clips: int
    agreeing: int
    labelled: int
    right_float: int
    losses: int
    gains: int
    limits: AccuracyLimits

    @property
    def agreement(self) -> float:
        """Percent of clips with the same label."""
        return 100.0 * self.agreeing / self.clips

    @property
    def top1_float(self) -> float | None:
        """Percent of labelled clips that the float graph labels right; None without labelled clips."""
        return 100.0 * self.right_float / self.labelled if self.labelled else None

    @property
    def top1(self) -> float | None:
        """Percent of labelled clips that the rounded graph labels right; None without labelled clips."""
        right = self.right_float - self.losses + self.gains
        return 100.0 * right / self.labelled if self.labelled else None

    @property
    def drop_bound(self) -> float | None:
        """Upper 95 % bound of the top-1 that is lost, in points; None without labelled clips."""
        return 100.0 * drop_bound(self.losses, self.gains, self.labelled) if self.labelled else None

    def check(self, graph: str) -> None:
        """Raise `AccuracyError` if `graph`, the name for the message, may lose too much."""
        limits = self.limits
        if self.labelled:
            limit, clips, kind = limits.max_drop, self.labelled, "labelled clips"
            limit_text = f"a drop of at most {limit:g} points of top-1"
        else:
            limit, clips, kind = 100.0 - limits.min_agreement, self.clips, "clips"
            limit_text = f"an agreement of at least {limits.min_agreement:g} %"
        if clips < (needed := clips_needed(limit / 100.0)):
            raise AccuracyError(
                f"{graph}: {clips} {kind} cannot show {limit_text}; it takes at least {needed}. Add clips "
                "(--validation), or allow more (--max-drop, --min-agreement)"
            )
        if self.agreement < limits.min_agreement:
            raise AccuracyError(
                f"{graph} gives {self.agreement:.1f} % of {self.clips} clips the label of the float graph; "
                f"{limits.min_agreement:g} % are required. Calibrate with more clips, of the kind that the "
                "model will serve"
            )
        if self.drop_bound is not None and self.drop_bound > limits.max_drop:
            raise AccuracyError(
                f"{graph} has top-1 {self.top1:.1f} %, the float graph {self.top1_float:.1f} %, on "
                f"{self.labelled} clips: with 95 % confidence it loses up to {self.drop_bound:.2f} points, "
                f"and {limits.max_drop:g} are allowed. Calibrate with more clips (--calibration), validate "
                "with more (--validation), or allow more (--max-drop)"
            )

    def described(self) -> str:
        """The comparison in one line of text."""
        top1 = ""
        if self.labelled:
            top1 = (
                f"top-1 {self.top1_float:.1f} % in float, {self.top1:.1f} % rounded, {self.labelled} clips, "
                f"a drop of at most {self.drop_bound:.2f} points; "
            )
        return f"{top1}same label for {self.agreement:.1f} % of {self.clips}"

    def to_json(self) -> dict[str, Any]:
        """The object `accuracy` in a graph's parity."""
        return {
            "clips": self.clips,
            "labelled": self.labelled,
            "top1_float": _rounded(self.top1_float),
            "top1": _rounded(self.top1),
            "drop_bound": _rounded(self.drop_bound),
            "agreement": _rounded(self.agreement),
            "max_drop": self.limits.max_drop,
            "min_agreement": self.limits.min_agreement,
        }


def judge_accuracy(
    float_graph: bytes,
    rounded: Sequence[Path],
    examples: ExampleSet,
    spec: ClipSpec,
    limits: AccuracyLimits,
    progress: ProgressReporter,
) -> dict[str, LabelComparison]:
    """Check rounded graphs against the limits on all examples; the result is keyed by file name.

    Raises:
        AccuracyError: a graph may lose more than the limits.
    """

    def logits_function(graph: Path | bytes) -> LogitsFunction:
        session = open_graph(graph)

        def logits(inputs: Clip) -> NDArray[np.float32]:
            return np.asarray(session.run([LOGITS], dict(inputs))[0], np.float32)

        return logits

    functions = {graph.name: logits_function(graph) for graph in rounded}
    with progress.count("validating clips", len(examples.examples)) as counter:

        def counted() -> Iterator[LabelledClip]:
            for clip in labelled_clips(examples, spec, progress):
                yield clip
                counter.advance()

        accuracies = compare_labels(logits_function(float_graph), functions, counted(), limits)
    for name, accuracy in accuracies.items():
        progress.message(f"{name}: {accuracy.described()}")
        accuracy.check(name)
    return accuracies


def compare_labels(
    float_graph: LogitsFunction,
    rounded: Mapping[str, LogitsFunction],
    clips: Iterable[LabelledClip],
    limits: AccuracyLimits,
) -> dict[str, LabelComparison]:
    """Run all graphs on all clips; the result is keyed by the names of `rounded`."""
    functions = {"": float_graph, **rounded}
    truths: list[tuple[int, ...]] = []
    labels: dict[str, list[int]] = {name: [] for name in functions}
    for clip in clips:
        truths.append(clip.labels)
        batch = {name: frames[None] for name, frames in clip.inputs.items()}
        for name, logits in functions.items():
            labels[name].append(int(logits(batch)[0].argmax()))
    right = {
        name: np.array([label in truth for label, truth in zip(given, truths, strict=True)])
        for name, given in labels.items()
    }
    right_float, float_labels = right[""], np.array(labels[""])
    result = {}
    for name in rounded:
        result[name] = LabelComparison(
            clips=len(truths),
            agreeing=int((np.array(labels[name]) == float_labels).sum()),
            labelled=sum(1 for truth in truths if truth),
            right_float=int(right_float.sum()),
            losses=int((right_float & ~right[name]).sum()),
            gains=int((right[name] & ~right_float).sum()),
            limits=limits,
        )
    return result


def drop_bound(losses: int, gains: int, clips: int, z: float = Z) -> float:
    """Upper bound of the drop in accuracy, as a fraction: the largest that the score test does not reject."""
    low, high = (losses - gains) / clips, 1.0 - 1e-9
    for _ in range(BISECTIONS):
        drop = (low + high) / 2
        # The maximum likelihood estimate of the probability of a gain, given the drop.
        b = -losses - gains + (2 * clips - losses + gains) * drop
        c = -gains * drop * (1 - drop)
        gain = (math.sqrt(max(b * b - 8 * clips * c, 0.0)) - b) / (4 * clips)
        deviation = math.sqrt(max(clips * (2 * gain + drop * (1 - drop)), 1e-12))
        if losses - gains - clips * drop > -z * deviation:
            low = drop
        else:
            high = drop
    return high


def clips_needed(limit: float) -> int:
    """The smallest number of clips that can show a rate below `limit`, which it does if none changes."""
    return max(1, math.ceil(Z * Z * (1 - limit) / limit)) if limit > 0 else 1_000_000_000


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)

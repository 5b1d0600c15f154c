"""Does rounding cost accuracy? The float graph and the rounded one on the same clips, label by label.

A clip in a folder that is called like one of the labels is of that class; one of a data set is of the class
that its annotations say. Of such clips the gate holds the loss of top-1 to a limit. Where no clip says its
class, all that can be asked is how often both give the same label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.calibration import LabelledClip
from model_export.precision import MIN_AGREEMENT
from service.errors import BlvnetError

Answer = Callable[[Mapping[str, NDArray[np.uint8]]], NDArray[np.float32]]
"""Input name -> uint8 (1, T_b, size, size, 3), to logits (1, C)."""


class AccuracyError(BlvnetError):
    """A rounded graph that loses more than it may."""


@dataclass(frozen=True)
class Accuracy:
    """What was found, in percent; the two top-1 are None where no clip says its class.

    Attributes:
        clips: how many were compared.
        labelled: how many of them say their class.
        top1_float: accuracy of the float graph on those.
        top1: accuracy of the rounded graph on those.
        agreement: clips that both give the same label.
        max_drop: points of top-1 that may be lost.
    """

    clips: int
    labelled: int
    top1_float: float | None
    top1: float | None
    agreement: float
    max_drop: float

    def check(self, what: str) -> None:
        """Raise `AccuracyError` for a graph, called `what`, that loses too much."""
        if self.top1_float is None or self.top1 is None:
            if self.agreement < MIN_AGREEMENT:
                raise AccuracyError(
                    f"{what} gives {self.agreement:.1f} % of {self.clips} clips the float graph's label, it"
                    f" must be {MIN_AGREEMENT:g} %. Calibrate with more clips, of the kind that it will see"
                )
        elif self.top1_float - self.top1 > self.max_drop:
            raise AccuracyError(
                f"{what} has top-1 {self.top1:.1f} % where the float graph has {self.top1_float:.1f} %, on"
                f" {self.labelled} clips (one is {100 / self.labelled:.2g} points); {self.max_drop:g} may be"
                " lost. Calibrate with more clips (--calibration), or judge by more (--validation)"
            )

    def described(self) -> str:
        """One line for people."""
        top1 = ""
        if self.top1_float is not None:
            top1 = (
                f"top-1 {self.top1_float:.1f} % in float, {self.top1:.1f} % rounded, {self.labelled} clips; "
            )
        return f"{top1}same label for {self.agreement:.1f} % of {self.clips}"

    def to_json(self) -> dict[str, Any]:
        """The object `accuracy` of a graph's parity."""
        return {
            "clips": self.clips,
            "labelled": self.labelled,
            "top1_float": _rounded(self.top1_float),
            "top1": _rounded(self.top1),
            "agreement": _rounded(self.agreement),
            "max_drop": self.max_drop,
        }


def compare_answers(
    float_graph: Answer, rounded: Mapping[str, Answer], clips: Iterable[LabelledClip], max_drop: float
) -> dict[str, Accuracy]:
    """Run all graphs on all clips: what each of `rounded`, by name, loses against the float graph."""
    truths: list[int] = []
    answers: dict[str, list[int]] = {name: [] for name in ("", *rounded)}
    for clip in clips:
        truths.append(-1 if clip.label is None else clip.label)
        batch = {name: frames[None] for name, frames in clip.inputs.items()}
        for name, answer in {"": float_graph, **rounded}.items():
            answers[name].append(int(answer(batch)[0].argmax()))
    truth = np.array(truths)
    given = {name: np.array(labels) for name, labels in answers.items()}
    return {name: _accuracy(truth, given[""], given[name], max_drop) for name in rounded}


def _accuracy(truth: NDArray[Any], wanted: NDArray[Any], found: NDArray[Any], max_drop: float) -> Accuracy:
    labelled = truth >= 0
    any_labelled = bool(labelled.any())
    return Accuracy(
        clips=len(truth),
        labelled=int(labelled.sum()),
        top1_float=_percent(wanted[labelled] == truth[labelled]) if any_labelled else None,
        top1=_percent(found[labelled] == truth[labelled]) if any_labelled else None,
        agreement=_percent(wanted == found),
        max_drop=max_drop,
    )


def _percent(right: NDArray[np.bool_]) -> float:
    return 100.0 * float(right.mean())


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)

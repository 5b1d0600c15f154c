"""The labels of mirrored clips, derived from the wording of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.teaching.examples import TeachingError

COUNTER = r"(?:counter|anti)[ _-]?clockwise"
SIDE = re.compile(rf"(?<![^\W_])(left|right|clockwise|{COUNTER})(?![^\W_])", re.IGNORECASE)


def mirrored_labels(labels: Sequence[str]) -> tuple[int, ...]:
    """Return, for each label, the index of the label that it becomes when a clip is mirrored left to right.

    "left" and "right" swap, and so do "clockwise" and "counter-clockwise" (or "anti-clockwise"). A label
    without such a word is its own mirror image.

    Raises:
        TeachingError: the counterpart of a label is not among the labels.
    """
    index = {_plain(label): number for number, label in enumerate(labels)}
    mirrored = []
    for label in labels:
        counterpart = _plain(SIDE.sub(_other_side, label))
        if counterpart not in index:
            raise TeachingError(
                f"mirrored clips of {label!r} need a label {counterpart!r}; teach it too, or do not mirror"
            )
        mirrored.append(index[counterpart])
    return tuple(mirrored)


def _plain(label: str) -> str:
    """Return `label` in lower case, with one spelling of counter-clockwise."""
    return re.sub(COUNTER, "counter-clockwise", label.casefold())


def _other_side(word: re.Match[str]) -> str:
    match word[0].casefold():
        case "left":
            return "right"
        case "right":
            return "left"
        case "clockwise":
            return "counter-clockwise"
        case _:
            return "clockwise"

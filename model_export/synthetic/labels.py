"""Splits and labels, and what reversing or mirroring a video does to its label.

Both tables are exact: a video of a label with its frames in reverse order is a video that `synth` could have
made for `REVERSED[label]`, with the same probability; the same holds for `MIRRORED` and frames flipped left
to right. Training may therefore use either as augmentation if it changes the label along with the video.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Split = Literal["train", "val", "test"]

SPLITS: Final[tuple[Split, ...]] = get_args(Split)

HOLDING: Final = "Holding something still"
SHAKING: Final = "Shaking something"

# Each row is a motion and its reverse. The first is drawn; the second is the first in reverse.
PAIRS: Final[tuple[tuple[str, str], ...]] = (
    ("Moving something from left to right", "Moving something from right to left"),
    ("Moving something up", "Moving something down"),
    ("Moving something closer to the camera", "Moving something away from the camera"),
    ("Something appearing", "Something disappearing"),
    ("Turning something clockwise", "Turning something counter-clockwise"),
    ("Moving two things together", "Moving two things apart"),
    ("Picking something up", "Putting something down"),
    ("Opening something", "Closing something"),
    ("Covering something", "Uncovering something"),
    ("Filling something up", "Emptying something out"),
)

# A mirror swaps these pairs; every other label is its own mirror image.
_MIRROR_PAIRS: Final = (PAIRS[0], PAIRS[4])

LABELS: Final[tuple[str, ...]] = (*(label for pair in PAIRS for label in pair), HOLDING, SHAKING)


def _involution(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    table = {label: label for label in LABELS}
    for first, second in pairs:
        table[first], table[second] = second, first
    return table


REVERSED: Final[dict[str, str]] = _involution(PAIRS)
MIRRORED: Final[dict[str, str]] = _involution(_MIRROR_PAIRS)

# Label -> the label whose motion is drawn for it.
FORWARD: Final[dict[str, str]] = {label: label for label in LABELS} | {
    second: first for first, second in PAIRS
}

"""The motion classes, and what playing a clip backwards or in a mirror does to its label.

Both tables are exact: a clip of a label, its frames in reverse order, is a clip that `synth` could have made
for `REVERSED[label]`, with the same probability; the same holds for `MIRRORED` and frames flipped left to
right. A trainer may therefore use either as augmentation, and must change the label with the clip.
"""

from __future__ import annotations

from typing import Final

HOLDING: Final = "Holding something still"
SHAKING: Final = "Shaking something"

# Each row is a motion and the same motion played backwards; the first of the two is the one that is drawn.
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

# The pairs that a mirror swaps as well; every other label is its own mirror image.
_MIRROR_PAIRS: Final = (PAIRS[0], PAIRS[4])

LABELS: Final[tuple[str, ...]] = (*(label for pair in PAIRS for label in pair), HOLDING, SHAKING)


def _involution(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    table = {label: label for label in LABELS}
    for first, second in pairs:
        table[first], table[second] = second, first
    return table


REVERSED: Final[dict[str, str]] = _involution(PAIRS)
MIRRORED: Final[dict[str, str]] = _involution(_MIRROR_PAIRS)

# The label whose motion is drawn; the partner of a pair is drawn from it and played backwards.
FORWARD: Final[dict[str, str]] = {label: label for label in LABELS} | {
    second: first for first, second in PAIRS
}

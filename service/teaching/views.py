"""The views of a clip that a head is learned from: crops of one sampling in time.

The crops show what may change from one recording to the next. They are further examples of a clip, and weigh
as much together as one. Several samplings in time, brightness, contrast and size were tried on the clips of
docs/teach.md, and gained nothing over the crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Along the longer side of the frames. The middle one is the view that requests are answered with.
CROPS = 3
# Networks above this would take seconds for each clip with all crops, and have their own robustness.
MAX_GMACS_WITH_CROPS = 2.0


def teaching_crops(gmacs: float | None) -> int:
    """Crops for a base of `gmacs` 10^9 multiply-accumulates; one where it is large or unknown."""
    return CROPS if gmacs is not None and gmacs <= MAX_GMACS_WITH_CROPS else 1


def teaching_inputs(
    inputs: Mapping[str, NDArray[np.uint8]], *, mirrored: bool
) -> dict[str, NDArray[np.uint8]]:
    """The graph's inputs for one example from the decoded crops of a clip.

    Args:
        inputs: uint8 `(crops, T_branch, size, size, 3)` of each input; the number of crops is odd.
        mirrored: add the mirror image (left to right) of each crop.

    Returns:
        V rows, or 2 V if mirrored: first the view that requests are answered with; mirror images last.
    """
    rows = {}
    for name, frames in inputs.items():
        centre = len(frames) // 2
        rows[name] = np.concatenate([frames[centre : centre + 1], frames[:centre], frames[centre + 1 :]])
    if not mirrored:
        return rows
    return {name: np.concatenate([frames, frames[:, :, :, ::-1]]) for name, frames in rows.items()}


def stacked(features: Sequence[NDArray[np.float32]], *, mirrored: bool) -> NDArray[np.float32]:
    """Features `(n, V, T', F)` of n examples that were kept with mirror images, `(2 V, T', F)` each.

    Examples may have been kept with different numbers of views by different versions of the service. As many
    are taken as all have.

    Args:
        features: the examples, at least one.
        mirrored: with mirror images, in the second half of the views.
    """
    count = min(len(views) for views in features) // 2
    halves = [views.reshape(2, -1, *views.shape[1:])[:, :count] for views in features]
    rows = np.stack([half.reshape(-1, *half.shape[2:]) if mirrored else half[0] for half in halves])
    return np.asarray(rows)

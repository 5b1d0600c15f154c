"""The views of a clip that a head is learned from: crops of one temporal sampling.

The crops imitate differences between recordings. They are additional examples of a clip, and together weigh
as much as one. Several temporal samplings and changes of brightness, contrast and size were tried on the
clips of docs/teach.md, and gained nothing over the crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Along the longer side of the frames. The middle one is the view that requests are answered with.
CROPS = 3
# Networks above this would take seconds for each clip with all crops, and are robust without them.
MAX_GMACS_WITH_CROPS = 2.0


def teaching_crops(gmacs: float | None) -> int:
    """Return the number of crops for a base of `gmacs` 10^9 multiply-accumulates; 1 if large or unknown."""
    return CROPS if gmacs is not None and gmacs <= MAX_GMACS_WITH_CROPS else 1


def teaching_inputs(
    inputs: Mapping[str, NDArray[np.uint8]], *, mirrored: bool
) -> dict[str, NDArray[np.uint8]]:
    """Return the graph's inputs for one example from the decoded crops of a clip.

    Args:
        inputs: uint8 `(crops, T_branch, size, size, 3)` of each input; the number of crops is odd.
        mirrored: add the mirror image (left to right) of each crop.

    Returns:
        V rows, or 2 V if mirrored: the view that requests are answered with comes first, mirror images last.
    """
    rows = {}
    for name, frames in inputs.items():
        centre = len(frames) // 2
        rows[name] = np.concatenate([frames[centre : centre + 1], frames[:centre], frames[centre + 1 :]])
    if not mirrored:
        return rows
    return {name: np.concatenate([frames, frames[:, :, :, ::-1]]) for name, frames in rows.items()}


def stacked(features: Sequence[NDArray[np.float32]], *, mirrored: bool) -> NDArray[np.float32]:
    """Stack n examples, stored with mirror images as `(2 V, T', F)` each, to features `(n, V, T', F)`.

    Different versions of the service may have stored different numbers of views. The result has as many views
    as every example has.

    Args:
        features: the examples, at least one.
        mirrored: include mirror images, in the second half of the views.
    """
    count = min(len(views) for views in features) // 2
    halves = [views.reshape(2, -1, *views.shape[1:])[:, :count] for views in features]
    rows = np.stack([half.reshape(-1, *half.shape[2:]) if mirrored else half[0] for half in halves])
    return np.asarray(rows)

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from model_export.synthetic.drawing.painting import fill_mask
from model_export.synthetic.drawing.shapes import Shape, crescent
from model_export.synthetic.tasks.appearance import OUTLINES

SIDE_PX = 64


def covered(shape: Shape) -> npt.NDArray[np.float32]:
    return fill_mask(list(shape.outline), SIDE_PX)


def test_crescent_is_open_to_the_right() -> None:
    mask = covered(crescent("crescent"))
    columns = np.flatnonzero(mask[len(mask) // 2] > 0.5)  # at half of the height
    columns_of_tips = np.flatnonzero(mask.max(axis=0) > 0.5)
    assert columns.max() < columns_of_tips.max() - SIDE_PX // 16


def test_outlines_of_appearance_are_told_apart_by_their_area() -> None:
    masks = {shape.name: covered(shape) for shape in OUTLINES}
    for first, second in combinations(masks, 2):
        apart = np.abs(masks[first] - masks[second]).sum() / np.maximum(masks[first], masks[second]).sum()
        assert apart > 0.15, (first, second)

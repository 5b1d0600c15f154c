"""The views of a clip that a head is learned from."""

from __future__ import annotations

import numpy as np
import pytest

from service.teaching.views import stacked, teaching_crops, teaching_inputs


def test_large_networks_get_fewer_crops() -> None:
    assert (teaching_crops(0.2), teaching_crops(20.0), teaching_crops(None)) == (3, 1, 1)


@pytest.mark.parametrize("crops", [1, 3])
def test_the_view_of_requests_is_first_and_mirror_images_are_last(crops: int) -> None:
    frames = np.arange(crops * 2 * 3 * 3 * 3, dtype=np.uint8).reshape(crops, 2, 3, 3, 3)
    rows = teaching_inputs({"frames": frames}, mirrored=True)["frames"]
    assert len(rows) == 2 * crops
    assert (rows[0] == frames[crops // 2]).all()
    assert (rows[crops:] == rows[:crops, :, :, ::-1]).all()
    assert (teaching_inputs({"frames": frames}, mirrored=False)["frames"] == rows[:crops]).all()


def test_examples_with_different_numbers_of_views_keep_those_that_all_have() -> None:
    many, few = np.arange(48, dtype=np.float32).reshape(6, 4, 2), np.full((2, 4, 2), 7, np.float32)
    mirrored = stacked([many, few], mirrored=True)
    assert mirrored.shape == (2, 2, 4, 2)
    assert (mirrored[0] == many[[0, 3]]).all()
    assert (mirrored[1] == few).all()
    assert (stacked([many, many], mirrored=False)[1] == many[:3]).all()

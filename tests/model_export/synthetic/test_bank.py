from itertools import combinations

import numpy as np
import pytest

from model_export.synthetic.bank import bank
from model_export.synthetic.fields import FieldMaker
from model_export.synthetic.split import SPLITS, Split

SPLIT_PAIRS = list(combinations(SPLITS, 2))


def fields_of(split: Split) -> set[FieldMaker]:
    return {*bank(split).thing_fields, *bank(split).background_fields}


@pytest.mark.parametrize(("one", "other"), SPLIT_PAIRS)
def test_splits_share_no_shape(one: Split, other: Split) -> None:
    for shape in bank(one).shapes:
        for stranger in bank(other).shapes:
            same_size = [len(c) for c in shape.outline] == [len(c) for c in stranger.outline]
            assert shape.name != stranger.name
            assert not (
                same_size and np.allclose(np.concatenate(shape.outline), np.concatenate(stranger.outline))
            )


@pytest.mark.parametrize(("one", "other"), SPLIT_PAIRS)
def test_splits_share_no_texture_colour_or_hand(one: Split, other: Split) -> None:
    assert not fields_of(one) & fields_of(other)
    assert not {tuple(c) for c in bank(one).palette} & {tuple(c) for c in bank(other).palette}
    assert not set(bank(one).hands) & set(bank(other).hands)


@pytest.mark.parametrize("split", SPLITS)
def test_outlines_fill_the_unit_square_in_one_direction(split: Split) -> None:
    for shape in bank(split).shapes:
        points = np.concatenate(shape.outline)
        assert np.abs(points).max() == pytest.approx(1.0), shape.name
        assert points.max(axis=0) == pytest.approx(-points.min(axis=0)), shape.name


@pytest.mark.parametrize("split", SPLITS)
def test_shapes_look_the_same_as_often_in_a_turn_as_they_say(split: Split) -> None:
    for shape in bank(split).shapes:
        if shape.order > 8 or shape.name.startswith("blob"):
            continue
        centred = np.concatenate(shape.outline)
        centred = centred - centred.mean(axis=0)
        turn = 2 * np.pi / shape.order
        turned = centred @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        nearest = np.linalg.norm(turned[:, None] - centred[None], axis=-1).min(axis=1)
        assert nearest.max() < 0.12, shape.name


@pytest.mark.parametrize("split", SPLITS)
def test_texture_fields_cover_their_area_with_weights(split: Split) -> None:
    for make in fields_of(split):
        field = make(np.random.default_rng(3), 41, 67, 7.5)
        assert field.shape == (41, 67), make
        assert field.dtype == np.float32, make
        assert -0.2 <= field.min() < field.max() <= 1.2, make

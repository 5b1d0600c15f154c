from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.painting import FrameSize
from model_export.synthetic.drawing.textures import FieldMaker
from model_export.synthetic.labels import SPLITS, Split

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
def test_shapes_have_their_stated_rotational_symmetry(split: Split) -> None:
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
def test_texture_fields_have_their_size_and_range(split: Split) -> None:
    for make in fields_of(split):
        field = make(np.random.default_rng(3), 41, 67, 7.5)
        assert field.shape == (41, 67), make
        assert field.dtype == np.float32, make
        assert -0.2 <= field.min() < field.max() <= 1.2, make


def lab(colour: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.asarray(
        cv2.cvtColor((colour / 255).astype(np.float32).reshape(1, -1, 3), cv2.COLOR_RGB2Lab), np.float32
    ).reshape(-1, 3)


def sprites_for(split: Split, seed: int) -> SpriteFactory:
    return SpriteFactory(np.random.default_rng(seed), bank(split), FrameSize(128, 96), margin_px=6)


@pytest.mark.parametrize("split", SPLITS)
def test_background_is_larger_than_the_frame_on_every_side(split: Split) -> None:
    for seed in range(20):
        background = sprites_for(split, seed).background
        assert background.shape == (96 + 12, 128 + 12, 3)
        assert background.min() >= 0
        assert background.max() <= 255


@pytest.mark.parametrize("split", SPLITS)
def test_objects_stand_out_from_the_background_and_from_each_other(split: Split) -> None:
    for seed in range(40):
        sprites = sprites_for(split, seed)
        first, second = sprites.colour(), sprites.colour()
        behind = lab(
            np.asarray(cv2.resize(sprites.background, (8, 8), interpolation=cv2.INTER_AREA), np.float32)
        )
        assert np.median(np.linalg.norm(lab(first) - behind, axis=-1)) > 35
        assert np.median(np.linalg.norm(lab(second) - behind, axis=-1)) > 25
        assert np.linalg.norm(lab(first) - lab(second)) > 25


def test_background_and_objects_depend_on_the_seed() -> None:
    backgrounds = {sprites_for("train", seed).background.tobytes() for seed in range(12)}
    things = {sprites_for("train", seed).thing(0.3).levels[0].tobytes() for seed in range(12)}
    assert len(backgrounds) == len(things) == 12


def test_hand_reaches_down_with_its_arm_at_the_top() -> None:
    for seed in range(12):
        alpha = sprites_for("test", seed).hand(1.2).levels[0][..., 3]
        side = len(alpha)
        assert alpha[3].max() > 0.9  # the arm runs out at the top
        assert alpha[-side // 12 :].max() > 0.9  # the longest finger ends at the bottom
        assert alpha[:, : side // 5].max() == 0  # nothing far out at the sides


def test_pointing_hand_has_one_finger_and_the_same_arm() -> None:
    for seed in range(6):
        whole, pointing = (
            sprites_for("train", seed).hand(1.2, pointing=one).levels[0][..., 3] for one in (False, True)
        )
        side = len(whole)
        assert np.array_equal(whole[: side // 3], pointing[: side // 3])
        assert pointing[-side // 5 :].sum() < 0.9 * whole[-side // 5 :].sum()


def test_marked_object_has_a_second_bold_colour_off_its_centre() -> None:
    for seed in range(12):
        sprites = sprites_for("train", seed)
        look = sprites.marked(sprites.shape(), 0.5).levels[0]
        solid = look[..., 3] > 0.99
        colours = lab(look[..., :3][solid])
        spread = np.linalg.norm(colours[:, None][::25] - colours[None, ::25], axis=-1)
        assert spread.max() > 20

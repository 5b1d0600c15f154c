import cv2
import numpy as np
import numpy.typing as npt
import pytest

from model_export.synthetic.bank import bank
from model_export.synthetic.painting import Stage
from model_export.synthetic.props import Props
from model_export.synthetic.split import SPLITS, Split


def lab(colour: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.asarray(
        cv2.cvtColor((colour / 255).astype(np.float32).reshape(1, -1, 3), cv2.COLOR_RGB2Lab), np.float32
    ).reshape(-1, 3)


def props_for(split: Split, seed: int) -> Props:
    return Props(np.random.default_rng(seed), bank(split), Stage(128, 96), margin_px=6)


@pytest.mark.parametrize("split", SPLITS)
def test_background_reaches_past_the_frame_on_every_side(split: Split) -> None:
    for seed in range(20):
        background = props_for(split, seed).background
        assert background.shape == (96 + 12, 128 + 12, 3)
        assert background.min() >= 0
        assert background.max() <= 255


@pytest.mark.parametrize("split", SPLITS)
def test_things_stand_out_from_the_background_and_from_each_other(split: Split) -> None:
    for seed in range(40):
        props = props_for(split, seed)
        first, second = props.colour(), props.colour()
        behind = lab(
            np.asarray(cv2.resize(props.background, (8, 8), interpolation=cv2.INTER_AREA), np.float32)
        )
        assert np.median(np.linalg.norm(lab(first) - behind, axis=-1)) > 35
        assert np.median(np.linalg.norm(lab(second) - behind, axis=-1)) > 25
        assert np.linalg.norm(lab(first) - lab(second)) > 25


def test_background_and_things_differ_from_seed_to_seed() -> None:
    backgrounds = {props_for("train", seed).background.tobytes() for seed in range(12)}
    things = {props_for("train", seed).thing(0.3).levels[0].tobytes() for seed in range(12)}
    assert len(backgrounds) == len(things) == 12


def test_hand_reaches_down_with_its_arm_at_the_top() -> None:
    for seed in range(12):
        alpha = props_for("test", seed).hand(1.2).levels[0][..., 3]
        side = len(alpha)
        assert alpha[3].max() > 0.9  # the arm runs out at the top
        assert alpha[-side // 12 :].max() > 0.9  # the longest finger ends at the bottom
        assert alpha[:, : side // 5].max() == 0  # nothing far out at the sides


def test_marked_thing_has_a_second_bold_colour_away_from_its_centre() -> None:
    for seed in range(12):
        props = props_for("train", seed)
        look = props.marked(props.shape(), 0.5).levels[0]
        solid = look[..., 3] > 0.99
        colours = lab(look[..., :3][solid])
        spread = np.linalg.norm(colours[:, None][::25] - colours[None, ::25], axis=-1)
        assert spread.max() > 20

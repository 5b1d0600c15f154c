import numpy as np
import pytest

from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.nuisance import MAX_CAMERA, Nuisance, draw_nuisance
from model_export.synthetic.drawing.painting import FrameSize, Painter

FRAME_SIZE = FrameSize(128, 96)


@pytest.fixture(scope="module")
def nuisances() -> list[Nuisance]:
    drawn = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn.append(draw_nuisance(rng, SpriteFactory(rng, bank("train"), FRAME_SIZE, 6), 40, 2.5))
    return drawn


def painted_share(nuisance: Nuisance, time: float) -> float:
    """Share of a frame that distractors and bar cover."""
    canvas = np.full((FRAME_SIZE.height, FRAME_SIZE.width, 3), -1, dtype=np.float32)
    painter = Painter(canvas, FRAME_SIZE)
    nuisance.behind(painter, time)
    nuisance.before(painter, time)
    return float((canvas > -0.5).any(axis=2).mean())


def test_camera_stays_within_the_margin_and_often_moves(nuisances: list[Nuisance]) -> None:
    cameras = np.array([one.camera for one in nuisances])
    assert np.abs(cameras).max() <= MAX_CAMERA
    assert 0.5 < (np.ptp(cameras, axis=1).max(axis=1) > 0.002).mean() < 0.95


def test_camera_moves_less_than_any_object(nuisances: list[Nuisance]) -> None:
    assert max(np.ptp(one.camera, axis=0).max() for one in nuisances) < 0.1


def test_distractors_and_bar_are_in_some_videos_and_cover_little_of_the_frame(
    nuisances: list[Nuisance],
) -> None:
    shares = np.array([painted_share(one, 0.5) for one in nuisances])
    assert 0.2 < (shares > 0).mean() < 0.6
    assert shares.max() < 0.15


@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_noise_has_the_requested_deviation(noise: float) -> None:
    still = Nuisance(np.zeros((1, 2)), np.ones(1), noise, 0.0, lambda *_: None, lambda *_: None)
    canvas = np.full((96, 128, 3), 128, dtype=np.float32)
    frame = still.degrade(canvas, 0, np.random.default_rng(1))
    assert frame.dtype == np.uint8
    assert frame.mean() == pytest.approx(128, abs=0.3)
    assert frame.std() == pytest.approx(noise, abs=0.1)


def test_blur_softens_and_gain_brightens() -> None:
    canvas = np.zeros((96, 128, 3), dtype=np.float32)
    canvas[:, 64:] = 200
    nuisance = Nuisance(np.zeros((1, 2)), np.full(1, 1.1), 0.0, 2.0, lambda *_: None, lambda *_: None)
    row = nuisance.degrade(canvas, 0, np.random.default_rng(1))[48, :, 0]
    assert row[120] == 220
    assert 20 < row[63] < 200

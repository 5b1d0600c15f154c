"""What hands draw in the air: paths that their labels describe, in bad light."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from model_export.synthetic import labels as motions
from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.nuisance import draw_nuisance
from model_export.synthetic.drawing.painting import FrameSize, Painter
from model_export.synthetic.encode import Encoding
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.tasks.air_drawing import (
    DIRECTIONS,
    DRAWN,
    LABELS,
    MIRRORED,
    REVERSED,
    drawn_path,
    in_bad_light,
    render_air_drawing,
)
from model_export.synthetic.tasks.hands import render_hands
from model_export.synthetic.tasks.scene import margin_px, paint_frames

SMALL = VideoFormat(FrameSize(64, 48), 16, Encoding("h264", Fraction(10), 20, 0, 12))
STROKES = [label for label in DRAWN if ", then " in label]
OUTLINES = [label for label in DRAWN if label not in STROKES]
# Degrees clockwise from up.
ANGLES = {name: 45.0 * place for place, name in enumerate(DIRECTIONS)}


def points(label: str, seed: int) -> npt.NDArray[np.float64]:
    path = drawn_path(np.random.default_rng(seed), label)
    return np.array([path(phase) for phase in np.linspace(0, 1, 101)])


def angle_between(vector: npt.NDArray[np.float64], degrees: float) -> float:
    """Degrees between a vector, y down, and a direction clockwise from up."""
    own = np.degrees(np.arctan2(vector[0], -vector[1]))
    return float(abs((own - degrees + 180) % 360 - 180))


def turns(path: npt.NDArray[np.float64]) -> float:
    """Twice the area that a closed path encloses; positive if it runs clockwise, y down."""
    x, y = (path - path.mean(axis=0)).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def test_labels_are_the_motions_two_strokes_and_closed_outlines() -> None:
    assert LABELS[:22] == motions.LABELS
    assert (len(STROKES), len(OUTLINES)) == (8 * 5, 2 * 3)
    assert "Drawing up, then up-right" not in LABELS  # too blunt an angle to be told from one stroke
    assert {"Drawing up, then right", "Drawing left, then right", "Drawing a circle clockwise"} < set(LABELS)


@pytest.mark.parametrize("label", STROKES)
def test_hand_moves_in_the_first_direction_and_then_in_the_second(label: str) -> None:
    first, second = label.removeprefix("Drawing ").split(", then ")
    for seed in range(3):
        path = points(label, seed)
        assert angle_between(path[35] - path[0], ANGLES[first]) <= 16.01
        assert angle_between(path[-1] - path[65], ANGLES[second]) <= 16.01


@pytest.mark.parametrize("label", OUTLINES)
def test_outlines_are_drawn_in_the_sense_of_their_label(label: str) -> None:
    for seed in range(3):
        path = points(label, seed)
        assert (turns(path) > 0) is not label.endswith("counter-clockwise")
        assert np.linalg.norm(path[0] - path[-1]) < 0.5 * np.ptp(path, axis=0).max()


@pytest.mark.parametrize("label", DRAWN)
def test_drawn_paths_stay_in_the_centre_square(label: str) -> None:
    assert np.abs(points(label, 1)).max() < 0.75


@pytest.mark.parametrize(
    ("label", "mirrored", "reverse"),
    [
        ("Drawing up, then right", "Drawing up, then left", "Drawing left, then down"),
        ("Drawing right, then left", "Drawing left, then right", "Drawing right, then left"),
        ("Drawing up-right, then down-right", *["Drawing up-left, then down-left"] * 2),
        ("Drawing a square clockwise", *["Drawing a square counter-clockwise"] * 2),
        (*motions.PAIRS[0], motions.PAIRS[0][1]),
    ],
)  # fmt: skip
def test_mirrored_and_reversed_labels(label: str, mirrored: str, reverse: str) -> None:
    assert (MIRRORED[label], REVERSED[label]) == (mirrored, reverse)


def test_many_videos_are_darker_and_noisier_than_those_of_hands() -> None:
    def brightness(render: object) -> list[float]:
        assert callable(render)
        clips = [
            render(np.random.default_rng(seed), "Moving something up", "train", SMALL) for seed in range(30)
        ]
        return [float(np.median(clip)) for clip in clips]

    dark = sum(value < 40 for value in brightness(render_air_drawing))
    assert dark > 1.3 * sum(value < 40 for value in brightness(render_hands))


def test_lamp_lights_the_middle_and_not_the_corners() -> None:
    lamps = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sprites = SpriteFactory(rng, bank("train"), SMALL.frame_size, 1)
        lit = in_bad_light(rng, draw_nuisance(rng, sprites, 16, 1.6), SMALL.frame_size)
        lamps += [] if lit.lamp is None else [lit.lamp]
    assert 5 <= len(lamps) <= 20
    for lamp in lamps:
        assert lamp.shape == (48, 64, 1)
        assert lamp[24, 32] > 1.2 * min(lamp[row, column] for row in (0, -1) for column in (0, -1))


def test_lamp_and_gamma_change_the_painted_values() -> None:
    rng = np.random.default_rng(2)
    sprites = SpriteFactory(rng, bank("train"), SMALL.frame_size, 1)
    drawn = draw_nuisance(rng, sprites, 16, 1.6)
    plain = replace(drawn, noise=0.0, blur=0.0, gain=np.ones(16))
    grey = np.full((48, 64, 3), 64.0, np.float32)
    assert (plain.degrade(grey, 0, rng) == 64).all()
    assert (replace(plain, gamma=0.5).degrade(grey, 0, rng) == 128).all()  # 255 * sqrt(64 / 255)
    lamp = np.full((48, 64, 1), 0.5, np.float32)
    assert (replace(plain, lamp=lamp).degrade(grey, 0, rng) == 32).all()


def test_frame_of_several_exposures_shows_what_moves_at_several_places() -> None:
    def painted(exposures: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(3)
        sprites = SpriteFactory(rng, bank("train"), SMALL.frame_size, margin_px(SMALL.frame_size, 0.05))
        sprites.background[:] = 0
        nuisance = replace(
            draw_nuisance(rng, sprites, 16, 1.6),
            noise=0.0,
            blur=0.0,
            gain=np.ones(16),
            camera=np.zeros((16, 2)),
            behind=lambda painter, time: None,
            before=lambda painter, time: None,
        )
        white = sprites.plain(np.full(3, 200, np.float32))

        def paint(painter: Painter, phase: float) -> None:
            x = -0.4 + 0.8 * phase
            painter.quad(white, [(x - 0.1, -0.1), (x + 0.1, -0.1), (x + 0.1, 0.1), (x - 0.1, 0.1)])

        line = np.linspace(0, 1, 5)
        return paint_frames(rng, sprites, nuisance, paint, line, line, exposures=exposures)

    sharp, blurred = painted(1), painted(4)
    partly = (blurred[0][24, :, 0] > 40) & (blurred[0][24, :, 0] < 160)  # lit in one to three of four moments
    assert partly.sum() >= 6
    lit = [(frame[24, :, 0] > 20).sum() for frame in (sharp[0], blurred[0])]
    assert lit[1] >= lit[0] + 4  # it moves 7 pixels while the frame is exposed
    assert np.array_equal(sharp[-1], blurred[-1])  # nothing moves after the end

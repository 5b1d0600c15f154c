"""Each motion, painted by a painter that records its calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from model_export.synthetic import motions
from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.painting import FrameSize, Image, Painter, Sprite
from model_export.synthetic.motions import Motion
from model_export.synthetic.timing import MotionTiming, draw_timing

FRAME_SIZE = FrameSize(128, 96)
SEEDS = range(10)
PHASES = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Put:
    x: float
    y: float
    size: float
    angle: float
    alpha: float


class Witness(Painter):
    """Records sprites and quads in the order of drawing."""

    def __init__(self) -> None:
        super().__init__(np.zeros((FRAME_SIZE.height, FRAME_SIZE.width, 3), dtype=np.float32), FRAME_SIZE)
        self.puts: list[Put] = []
        self.quads: list[Sequence[tuple[float, float]]] = []

    def put(
        self, look: Sprite, x: float, y: float, size: float, angle: float = 0.0, alpha: float = 1.0
    ) -> None:
        self.puts.append(Put(x, y, size, angle, alpha))

    def quad(self, image: Image, corners: Sequence[tuple[float, float]]) -> None:
        self.quads.append(corners)


def course(motion: Motion, seed: int, timing: MotionTiming | None = None) -> list[Witness]:
    """The calls of a motion at every phase."""
    rng = np.random.default_rng(seed)
    sprites = SpriteFactory(rng, bank("train"), FRAME_SIZE, 5)
    paint = motion(rng, sprites, timing or draw_timing(rng, 40))
    witnesses = [Witness() for _ in PHASES]
    for witness, phase in zip(witnesses, PHASES, strict=True):
        paint(witness, float(phase))
    return witnesses


def series(motion: Motion, seed: int, of: Callable[[Put], float], index: int = 0) -> np.ndarray:
    return np.array([of(witness.puts[index]) for witness in course(motion, seed)])


@pytest.mark.parametrize("seed", SEEDS)
def test_moving_right_changes_mostly_x(seed: int) -> None:
    x, y = series(motions.move_right, seed, lambda p: p.x), series(motions.move_right, seed, lambda p: p.y)
    assert (np.diff(x) > 0).all()
    assert x[-1] - x[0] >= 0.4
    assert np.ptp(y) < 0.35 * (x[-1] - x[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_moving_up_changes_mostly_y(seed: int) -> None:
    x, y = series(motions.move_up, seed, lambda p: p.x), series(motions.move_up, seed, lambda p: p.y)
    assert (np.diff(y) < 0).all()
    assert y[0] - y[-1] >= 0.4
    assert np.ptp(x) < 0.35 * (y[0] - y[-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_approaching_object_at_least_doubles_in_size(seed: int) -> None:
    size = series(motions.approach, seed, lambda p: p.size)
    assert (np.diff(size) > 0).all()
    assert size[-1] >= max(0.42, 2 * size[0]) - 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_appearing_starts_with_nothing_and_ends_opaque_in_one_place(seed: int) -> None:
    witnesses = course(motions.appear, seed)
    assert not witnesses[0].puts
    alphas = [witness.puts[0].alpha if witness.puts else 0.0 for witness in witnesses]
    assert alphas == sorted(alphas)
    assert alphas[-1] == 1.0
    assert len({(p.x, p.y, p.size) for witness in witnesses for p in witness.puts}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_turning_is_long_and_slow_enough(seed: int) -> None:
    timing = draw_timing(np.random.default_rng(seed), 40)
    angle = np.array([witness.puts[0].angle for witness in course(motions.turn_clockwise, seed, timing)])
    total = angle[-1] - angle[0]
    assert (np.diff(angle) > 0).all()
    assert 120 <= total <= 540
    assert total * timing.steepest < 45


@pytest.mark.parametrize("seed", SEEDS)
def test_two_things_end_side_by_side(seed: int) -> None:
    gaps = [
        math.dist((a.x, a.y), (b.x, b.y)) for a, b in (w.puts for w in course(motions.come_together, seed))
    ]
    last = course(motions.come_together, seed)[-1].puts
    assert (np.diff(gaps) < 0).all()
    assert gaps[0] - gaps[-1] >= 0.4
    assert gaps[-1] <= (last[0].size + last[1].size) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_object_rests_until_the_hand_reaches_it_and_moves_with_the_hand(seed: int) -> None:
    witnesses = course(motions.pick_up, seed)
    thing, hand = (np.array([w.puts[index].y for w in witnesses]) for index in (0, 1))
    tip = hand + witnesses[0].puts[1].size / 2
    assert tip[0] < -0.3
    still = thing == thing[0]
    assert still[:8].all()
    assert tip[still].max() >= thing[0] - witnesses[0].puts[0].size / 2
    assert thing[-1] <= thing[0] - 0.45
    assert np.abs(np.diff(thing)).max() < 0.15
    assert np.diff(thing[~still]) == pytest.approx(np.diff(hand[~still]))


@pytest.mark.parametrize("seed", SEEDS)
def test_covering_hides_a_thing_that_stays(seed: int) -> None:
    witnesses = course(motions.cover, seed)
    things, sheets = ([w.puts[index] for w in witnesses] for index in (0, 1))
    assert len(set(things)) == 1
    gap = [math.dist((t.x, t.y), (s.x, s.y)) for t, s in zip(things, sheets, strict=True)]
    assert gap[0] >= (things[0].size + sheets[0].size) / 2
    assert gap[-1] < 0.05
    assert sheets[-1].size >= 1.4 * things[-1].size


@pytest.mark.parametrize("seed", SEEDS)
def test_opening_changes_steadily_in_place(seed: int) -> None:
    witnesses = course(motions.open_up, seed)
    corners = np.array([[corner for quad in witness.quads for corner in quad] for witness in witnesses])
    assert np.abs(corners).max() < 0.8
    moved = np.abs(np.diff(corners, axis=0)).max(axis=(1, 2))
    assert (moved > 0.002).all()
    fixed = np.ptp(corners, axis=0).max(axis=1) == 0
    assert fixed.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_filling_raises_the_level_between_still_walls(seed: int) -> None:
    witnesses = course(motions.fill_up, seed)
    level = np.array([witness.quads[0][0][1] for witness in witnesses])
    assert (np.diff(level) < 0).all()
    assert level[0] - level[-1] >= 0.25
    assert len({str(witness.quads[1:]) for witness in witnesses}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_holding_draws_the_same_at_every_phase(seed: int) -> None:
    assert len({tuple(witness.puts) for witness in course(motions.hold, seed)}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_shaking_swings_to_both_sides_and_returns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sprites = SpriteFactory(rng, bank("train"), FRAME_SIZE, 5)
    paint = motions.shake(rng, sprites, draw_timing(rng, 40))
    witness = Witness()
    for phase in np.linspace(0, 1, 401):
        paint(witness, float(phase))
    path = np.array([(p.x, p.y) for p in witness.puts])
    swing = (path - path[0]) @ (path[np.argmax(np.abs(path - path[0]).sum(axis=1))] - path[0])
    turns = np.sum(np.diff(np.sign(np.diff(swing))) != 0)
    assert 4 <= turns <= 11
    assert np.linalg.norm(np.ptp(path, axis=0)) >= 0.12
    assert path[-1] == pytest.approx(path[0], abs=1e-9)

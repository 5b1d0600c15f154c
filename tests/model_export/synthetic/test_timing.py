import numpy as np
import pytest

from model_export.synthetic.timing import MotionTiming, draw_timing


@pytest.mark.parametrize("seed", range(40))
def test_phase_rises_from_0_to_1(seed: int) -> None:
    phase = draw_timing(np.random.default_rng(seed), 50).phase
    assert phase.shape == (50,)
    assert phase[0] == pytest.approx(0)
    assert phase[-1] == pytest.approx(1)
    assert (np.diff(phase) >= -1e-12).all()


def test_motion_takes_at_least_two_fifths_of_a_clip() -> None:
    for seed in range(200):
        phase = draw_timing(np.random.default_rng(seed), 100).phase
        assert ((phase > 0.001) & (phase < 0.999)).mean() >= 0.4


def test_onsets_and_ends_differ() -> None:
    phases = [draw_timing(np.random.default_rng(seed), 100).phase for seed in range(100)]
    onsets = [int((phase < 0.001).sum()) for phase in phases]
    assert min(onsets) <= 2
    assert max(onsets) >= 15


@pytest.mark.parametrize(("frames", "expected"), [(160, 10 / 159), (16, 1 / 15), (12, 1 / 11)])
def test_steepest_is_the_largest_step_between_sampled_frames(frames: int, expected: float) -> None:
    assert MotionTiming(np.linspace(0, 1, frames)).steepest == pytest.approx(expected)

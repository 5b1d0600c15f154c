"""Published models were evaluated on frames scaled by PIL: our scaler must give the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaler_answers import ScalerComparison, compare, generate_videos, open_package, summary
from service.packages.folders import bundled_models

SEED = 31
LARGEST_MEAN_PIXELS = 1.5  # levels of 255
LARGEST_LOGITS = 0.05  # of the largest logit: far below what separates two labels


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[ScalerComparison]:
    manifest, session = open_package(bundled_models(), "blvnet-tam-mini")
    clips: list[Path] = generate_videos(tmp_path_factory.mktemp("clips") / "made", per_label=1, seed=SEED)
    return [compare(clip, manifest.clip, session) for clip in clips]


def test_no_top1_changes_with_the_scaler(answers: list[ScalerComparison]) -> None:
    assert [answer.top1[0] for answer in answers] == [answer.top1[1] for answer in answers]
    assert len({answer.top1[0] for answer in answers}) > 15  # and the labels differ between clips


def test_pixels_and_logits_stay_near_to_those_of_pil(answers: list[ScalerComparison]) -> None:
    # Over all clips: one with a fine, saturated pattern may differ by more, because of its chroma.
    assert summary(answers)["pixels_mean_of_255"] < LARGEST_MEAN_PIXELS
    assert max(answer.logits for answer in answers) < LARGEST_LOGITS


def test_the_comparison_sees_a_difference(answers: list[ScalerComparison]) -> None:
    found = summary(answers)
    assert found["pixels_mean_of_255"] > 0
    assert found["logits_largest_relative"] > 0
    assert found["top1_changed"] == 0

"""The benchmark of few clips, on made-up features."""

from __future__ import annotations

import numpy as np

from benchmarks.teach.few_clips import LabelledFeatures, draw, measure
from tests.service.teaching.examples import examples


def test_draws_have_as_many_clips_of_each_label_and_none_to_validate_on() -> None:
    labels = np.array(["up"] * 6 + ["down"] * 6)
    chosen = draw(labels, np.arange(10), 3, seed=1)
    assert sorted(labels[chosen]) == ["down"] * 3 + ["up"] * 3
    assert chosen.max() < 10
    assert draw(labels, np.arange(10), 3, seed=2).tolist() != chosen.tolist()


def test_measurement_reports_clips_that_were_not_learned_from() -> None:
    shown = examples({"up": 5, "down": 5}, noise=0.3)
    clips = LabelledFeatures(
        shown.features, np.array(shown.labels), np.array([number % 5 == 4 for number in range(10)])
    )
    results = measure(clips, draws=2, sizes=(2, 4))
    assert (results["train"], results["val"], results["draws"]) == (8, 2, 2)
    assert results["2 clips a label"] == {"val": 1.0, "rest of train": 1.0}
    assert results["4 clips a label"] == {"val": 1.0, "rest of train": None}
    assert results["all"] == {"val": 1.0, "cross-validated": 1.0}

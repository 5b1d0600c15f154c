"""The benchmark of taught models on made-up features, and of swipes on generated videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.teach.few_clips import LabelledFeatures, draw, measure, measure_groups
from benchmarks.teach.swipes import SWIPES, label_swipes, shares
from model_export.synthetic.dataset import PlannedVideo, make_video
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


def test_each_group_is_tested_on_heads_that_did_not_learn_from_it() -> None:
    shown = examples({"up": 6, "down": 6}, noise=0.3)
    swapped = {"up": "down", "down": "up"}
    groups = np.array([("A", "B", "C")[number % 3] for number in range(12)])
    labels = [
        swapped[label] if group == "C" else label for label, group in zip(shown.labels, groups, strict=True)
    ]
    clips = LabelledFeatures(shown.features, np.array(labels), np.zeros(12, bool), groups)
    results = measure_groups(clips, draws=2, few=2)
    assert results["draws"] == 2
    # The labels of C are swapped: heads that had learned from C would know them.
    assert results["groups"]["C"] == {"clips": 4, "all": 0.0, "2 clips a label": 0.0}


def test_swipes_are_compared_with_all_labels_with_the_four_moves_and_with_the_opposite() -> None:
    low = dict.fromkeys((*SWIPES.values(), "Holding something still"), 0.1)
    scores = [
        low | {SWIPES["left"]: 0.9},
        low | {SWIPES["left"]: 0.5, "Holding something still": 0.6},
        low | {SWIPES["left"]: 0.5, SWIPES["up"]: 0.6},
        low | {SWIPES["left"]: 0.5, SWIPES["right"]: 0.6},
    ]
    found = shares(("left", of_labels) for of_labels in scores)
    assert found == {"clips": 4, "all labels": 0.25, "four moves": 0.5, "direction": 0.75}


def test_bundled_network_labels_the_swipes_of_a_folder(tmp_path: Path) -> None:
    made, data = tmp_path / "made", tmp_path / "data"
    for direction, label in (*SWIPES.items(), ("still", "Holding something still")):
        (made / "test" / label).mkdir(parents=True)
        (folder := data / "train" / direction).mkdir(parents=True)
        video = make_video(made, PlannedVideo("test", label, 0, seed=1))
        video.rename(folder / video.name)
    assert label_swipes(data) == {"clips": 4, "all labels": 1.0, "four moves": 1.0, "direction": 1.0}

"""Files of predictions, ensembles, several labels, and comparisons of two networks."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from model_export.commands.compare import compare_predictions
from model_export.datasets.reading import Unreadable
from model_export.evaluation.accuracy import evaluate_multi_label, evaluate_predictions
from model_export.evaluation.comparison import compare
from model_export.evaluation.intervals import mcnemar, paired_difference, wilson
from model_export.evaluation.predictions import Predictions, combine, load_predictions
from model_export.metrics import average_precisions
from service.errors import BlvnetError

LABELS = ("left", "right", "still, or not")
app = typer.Typer()
app.command()(compare_predictions)


def predictions(given: list[int], targets: list[int], root: str = "/data") -> Predictions:
    """Predictions of the labels `given`, with a margin of 2."""
    logits = (2 * np.eye(3)[given]).astype(np.float32)
    paths = tuple(Path(root, "val", LABELS[target], f"{row}.mp4") for row, target in enumerate(targets))
    return Predictions(LABELS, paths, np.array(targets), logits, groups=tuple("ab"[row % 2] for row in given))


SINGLE = predictions([0, 1, 1, 2], [0, 0, 1, 2])
SEVERAL = replace(SINGLE, targets=np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]), groups=())


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("saved", [SINGLE, SEVERAL], ids=["one label", "several labels"])
def test_file_of_predictions_is_read_back(saved: Predictions, suffix: str, tmp_path: Path) -> None:
    saved.save(tmp_path / f"p{suffix}")
    loaded = load_predictions(tmp_path / f"p{suffix}")
    assert (loaded.labels, loaded.paths, loaded.groups) == (saved.labels, saved.paths, saved.groups)
    np.testing.assert_array_equal(loaded.targets, saved.targets)
    np.testing.assert_array_equal(loaded.logits, saved.logits)


def test_parquet_file_has_a_row_per_video_for_other_tools(tmp_path: Path) -> None:
    SINGLE.save(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["path", "target", "logits", "group"]
    assert table.to_pylist()[1] == {
        "path": "/data/val/left/1.mp4",
        "target": 0,
        "logits": [0.0, 2.0, 0.0],
        "group": "b",
    }


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_other_files_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"p{suffix}"
    with pytest.raises(BlvnetError, match="there is no such file"):
        load_predictions(path)
    path.write_bytes(content)
    with pytest.raises(BlvnetError, match="is not a file of blvnet evaluate --predictions"):
        load_predictions(path)
    with pytest.raises(BlvnetError, match=r"are in \.parquet or \.npz files; choose one"):
        SINGLE.save(tmp_path / "p.csv")


def test_ensemble_averages_probabilities() -> None:
    sure = replace(SINGLE, logits=np.array([[9, 0, 0]] * 4, np.float32))
    unsure = replace(SINGLE, logits=np.array([[0, 0.1, 0]] * 4, np.float32))
    logits = combine([sure, unsure]).logits.astype(np.float64)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    softmax = [np.exp(x.logits[0]) / np.exp(x.logits[0]).sum() for x in (sure, unsure)]
    np.testing.assert_allclose(probability[0], np.mean(softmax, axis=0), rtol=1e-5)
    several = combine([replace(SEVERAL, logits=sure.logits), replace(SEVERAL, logits=unsure.logits)])
    expected = (1 / (1 + np.exp(-9)) + 0.5) / 2
    assert 1 / (1 + np.exp(-several.logits[0, 0])) == pytest.approx(expected)


def test_ensemble_leaves_out_the_unreadable_spans_of_a_video_and_keeps_its_others() -> None:
    video = Path("/data/long.mp4")
    spans = replace(SINGLE, paths=(video,) * 4)
    first = replace(
        spans,
        paths=spans.paths[:3],
        targets=spans.targets[[0, 2, 3]],
        logits=spans.logits[[0, 2, 3]],
        groups=("a", "a", "b"),
        unreadable=(Unreadable(video, "no frame in the span"),),
        rows=(0, 2, 3),
    )
    combined = combine([first, spans])
    assert (combined.paths, combined.groups) == ((video,) * 3, ("a", "a", "b"))
    assert combined.targets.tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.diff(combined.logits), np.diff(spans.logits[[0, 2, 3]]), atol=1e-6)
    assert [item.reason for item in combined.unreadable] == ["no frame in the span"]


def test_ensemble_keeps_the_ranks_of_probabilities_that_round_to_0_or_1() -> None:
    logits = np.array([[900, 50, -900]] * 4, np.float32)
    for member in (replace(SINGLE, logits=logits), replace(SEVERAL, logits=logits)):
        combined = combine([member, member]).logits
        assert np.isfinite(combined).all()
        np.testing.assert_allclose(np.diff(combined), np.diff(logits))


def test_accuracies_by_group_and_top_k() -> None:
    result = evaluate_predictions(SINGLE)
    assert result.groups == {"a": (2, 2), "b": (1, 2)}
    assert (result.top_accuracy(1), result.top_accuracy(2)) == (0.75, 1.0)
    assert result.to_json()["per_group"]["b"] == {"top1": 0.5, "clips": 2}
    assert result.top1_interval == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_average_precision_is_the_mean_precision_at_the_ranks_of_the_examples() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    found = average_precisions(scores, targets)
    assert found[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert np.isnan(found[1])  # no video has this label


def test_average_precision_does_not_depend_on_the_order_of_equal_scores() -> None:
    scores = np.array([[2, 0], [1, 0], [1, 0], [1, 0], [0, 0]], np.float32)
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [1, 0]])
    expected = [(1 / 1 + 2 / 4 + 3 / 5) / 3, 1 / 5]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        assert average_precisions(scores[order], targets[order]) == pytest.approx(expected)


def test_several_labels_are_judged_by_mean_average_precision() -> None:
    result = evaluate_multi_label(SEVERAL)
    document = result.to_json()
    # Equal scores: both videos of the first two labels have the ranks 1 and 4, and 2 and 4.
    assert document["map"] == pytest.approx(np.mean([(1 / 1 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2, 1.0]))
    assert document["hit1"] == 0.75
    assert list(document["per_class"]) == list(LABELS)


def test_comparison_pairs_clips_and_gives_intervals() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(3, size=300).tolist()
    first = [target if generator.random() < 0.7 else (target + 1) % 3 for target in targets]
    second = [target if generator.random() < 0.9 else (target + 1) % 3 for target in targets]
    # The second file is in another order, and was written with the data in another folder.
    a, b = predictions(first, targets), predictions(second, targets, root="/elsewhere/data")
    order = generator.permutation(300)[:280]
    b = replace(
        b, paths=tuple(b.paths[row] for row in order), targets=b.targets[order], logits=b.logits[order]
    )
    result = compare(a, b)
    assert (result.clips, result.only_in_first, result.only_in_second) == (280, 20, 0)
    top1, mean_class = result.measures
    right_a, right_b = (np.array(given)[order] == np.array(targets)[order] for given in (first, second))
    assert (top1.first, top1.second) == (right_a.mean(), right_b.mean())
    for measure in (top1, mean_class):
        low, high = measure.interval
        assert 0 < low < measure.second - measure.first < high < 0.4
    assert result.losses == (right_a & ~right_b).sum()
    assert result.p_value is not None
    assert result.p_value < 1e-6


def test_equal_networks_do_not_differ() -> None:
    result = compare(SINGLE, SINGLE)
    assert (result.agreement, result.losses, result.gains, result.p_value) == (1.0, 0, 0, 1.0)
    low, high = result.measures[0].interval
    assert low < 0 < high
    assert compare(SEVERAL, SEVERAL).measures[0].interval == (0.0, 0.0)


def test_predictions_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(BlvnetError, match="label 0 is 'left' in the network and 'up' in the data set"):
        compare(SINGLE, replace(SINGLE, labels=("up", *LABELS[1:])))
    with pytest.raises(BlvnetError, match="no clip in common"):
        compare(SINGLE, replace(SINGLE, paths=tuple(Path(f"/x/y/{row}") for row in range(4))))
    with pytest.raises(BlvnetError, match="the same clips other labels"):
        compare(SINGLE, replace(SINGLE, targets=np.array([1, 0, 1, 2])))


def test_clips_of_one_folder_are_compared_row_by_row_or_not_at_all() -> None:
    folder = (Path("/data/folder"),)
    a = replace(SINGLE, paths=folder * 4, targets=np.zeros(4, np.int64))
    b = replace(a, logits=a.logits[::-1])
    result = compare(a, b)
    assert (result.clips, result.losses, result.gains) == (4, 1, 1)
    shorter = replace(a, paths=folder * 3, targets=a.targets[:3], logits=a.logits[:3], groups=a.groups[:3])
    with pytest.raises(BlvnetError, match="/data/folder is there several times"):
        compare(a, shorter)


def test_intervals_are_the_published_ones() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998
    low, high = paired_difference(9, 36 - 9, 100)
    assert low < 0.18 < high
    assert (-high, -low) == pytest.approx(paired_difference(27, 9, 100))
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)


def test_command_prints_a_table_or_one_json_document(tmp_path: Path) -> None:
    SINGLE.save(tmp_path / "a.npz")
    replace(SINGLE, logits=SINGLE.logits[[0, 0, 2, 3]]).save(tmp_path / "b.parquet")
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.parquet")]
    document = json.loads(CliRunner().invoke(app, [*files, "--json"]).stdout)
    assert document["top1"]["difference"] == 0.25
    assert (document["losses"], document["gains"]) == (0, 1)
    text = CliRunner().invoke(app, files).stdout
    assert "0 clips only the first labels right, 1 only the second" in text
    assert "+25.0" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logits", np.zeros((3, 7), np.float32)),
        ("logits", np.zeros((2, 3), np.float32)),
        ("targets", np.array([0, 1, 3])),
        ("targets", np.array([0, -1, 2])),
        ("targets", np.zeros(3)),
        ("targets", np.full((3, 3), 2)),
        ("paths", np.array(5)),
        ("labels", np.array(3)),
    ],
    ids=lambda item: item if isinstance(item, str) else str(np.shape(item)),
)
def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    arrays: dict[str, Any] = {
        "labels": np.array(LABELS),
        "paths": np.array(["a", "b", "c"]),
        "targets": np.array([0, 1, 2]),
        "logits": np.zeros((3, 3), np.float32),
        "groups": np.array([], str),
    }
    np.savez_compressed(tmp_path / "right.npz", **arrays)
    assert load_predictions(tmp_path / "right.npz").labels == LABELS
    np.savez_compressed(tmp_path / "wrong.npz", **(arrays | {name: value}))
    with pytest.raises(BlvnetError, match=r"wrong\.npz is not a file of blvnet evaluate --predictions"):
        load_predictions(tmp_path / "wrong.npz")


def test_file_with_changed_bytes_is_read_or_refused(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    np.savez_compressed(
        tmp_path / "whole.npz",
        labels=np.array(LABELS),
        paths=np.arange(500).astype(str),
        targets=np.zeros(500, np.int64),
        logits=logits,
        groups=np.array([], str),
    )
    content = (tmp_path / "whole.npz").read_bytes()
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place : place + 4] = bytes(byte ^ 255 for byte in changed[place : place + 4])
        (tmp_path / "changed.npz").write_bytes(changed)
        with suppress(BlvnetError):  # the changed value may be one that is not checked
            load_predictions(tmp_path / "changed.npz")

"""Figures of merit: computed right, by the serving path, for checkpoints and packages alike."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.cache import Unreadable
from model_export.checkpoint import save_checkpoint
from model_export.datasets import Listing, read_listing
from model_export.evaluate import (
    CheckpointScorer,
    Evaluation,
    PackageScorer,
    evaluate_listing,
    plot_confusion,
)
from model_export.networks.names import build, parse_architecture
from model_export.networks.pixels import normalise
from service.clip.decode import decode_clip
from service.errors import BlvnetError
from tests.clips import ClipRecipe, encode
from tests.tiny_models import LABELS, write_package

BLVNET = Path(sys.executable).with_name("blvnet")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
CONFUSION = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 5]])
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def found(confusion: np.ndarray = CONFUSION, pairs: tuple[tuple[int, int], ...] = ((0, 1),)) -> Evaluation:
    return Evaluation(("left", "right", "still"), confusion, np.array([10, 10, 5]), pairs, ())


def ignore(_: int) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each colour, labels in the tiny model's order."""
    root = tmp_path_factory.mktemp("colours")
    (root / "labels.json").write_text(json.dumps(LABELS))
    for label, colour in COLOURS.items():
        folder = root / "test" / label
        folder.mkdir(parents=True)
        for index in range(2):
            image = np.full((40, 60, 3), colour, np.uint8)
            clip = encode([image] * (8 + index), ClipRecipe(width=60, height=40))
            (folder / f"{index}.mp4").write_bytes(clip)
    return root


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the colour meter in two versions; the first names its labels otherwise."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, version=2, labels=("a", "b", "c"))
    write_package(models, version=10)
    return models


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained network that says its labels."""
    torch.manual_seed(1)
    model = parse_architecture("blvnet-tam-mini", num_classes=3, frames=8, size=32)
    path = tmp_path / "best.pt"
    save_checkpoint(path, model, build(model).state_dict(), {"labels": list(LABELS)})
    return path


def test_accuracies_of_a_known_confusion() -> None:
    result = found()
    assert (result.clips, result.top1_accuracy, result.top5_accuracy) == (25, 22 / 25, 1.0)
    assert result.class_accuracy() == {"left": 0.8, "right": 0.9, "still": 1.0}
    assert result.pair_accuracy() == 17 / 20
    assert result.reversed_rate() == 3 / 20
    assert result.worst_confusions(5) == [("left", "right", 2), ("right", "left", 1)]


def test_mistakes_outside_the_pair_are_no_swaps() -> None:
    result = found(np.array([[5, 0, 5], [0, 10, 0], [0, 0, 5]]))
    assert result.pair_accuracy() == 0.75
    assert result.reversed_rate() == 0.0


def test_without_pairs_or_clips_there_is_no_figure() -> None:
    result = found(np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]]), pairs=())
    assert result.pair_accuracy() is None
    assert result.reversed_rate() is None
    assert result.class_accuracy()["right"] is None


def test_result_is_plain_values() -> None:
    result = Evaluation(("a",), np.array([[1]]), np.array([1]), (), (Unreadable(Path("x.mp4"), "why"),))
    document = json.loads(json.dumps(result.to_json()))
    assert document["unreadable"] == [{"path": "x.mp4", "reason": "why"}]
    assert document["confusion"] == [[1]]


def test_confusion_is_drawn(tmp_path: Path) -> None:
    plot_confusion(found(), tmp_path / "new" / "confusion.png")
    assert (tmp_path / "new" / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [2, 400])
def test_confusion_of_any_number_of_long_labels_is_drawn_at_a_bearable_size(
    tmp_path: Path, count: int
) -> None:
    labels = tuple(
        f"{index} {'Trying to pour something into something, but missing it ' * 2}" for index in range(count)
    )
    result = Evaluation(labels, np.eye(count, dtype=np.int64), np.ones(count, np.int64), (), ())
    plot_confusion(result, tmp_path / "confusion.png")
    width, height = struct.unpack(">II", (tmp_path / "confusion.png").read_bytes()[16:24])
    assert 400 <= width == height <= 3000


def test_package_is_scored_in_its_highest_version(data: Path, package: Path) -> None:
    listing = read_listing("folder", data, "test")
    ticks: list[int] = []
    scorer = PackageScorer(package, "tiny")
    result = evaluate_listing(scorer, listing, clips=2, crops=3, jobs=2, tick=ticks.append)
    assert result.confusion.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert ticks == [1] * 6


def test_wrongly_filed_clip_lowers_the_figure(data: Path, package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "green"
    folder.mkdir(parents=True)
    (folder / "red.mp4").write_bytes((data / "test/red/0.mp4").read_bytes())
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    listing = read_listing("folder", tmp_path, "test")
    result = evaluate_listing(PackageScorer(package, "tiny"), listing, clips=1, crops=1, jobs=1, tick=ignore)
    assert result.top1_accuracy == 0.0
    assert result.worst_confusions(1) == [("green", "red", 1)]


def test_checkpoint_logits_are_the_networks_own(checkpoint: Path, data: Path) -> None:
    scorer = CheckpointScorer(checkpoint)
    inputs = decode_clip(data / "test/red/0.mp4", scorer.clip, clips=2).inputs
    streams = [normalise(torch.from_numpy(inputs[name])) for name in ("little", "big")]
    with torch.inference_mode():
        expected = scorer.network(*streams).mean(1)
    assert scorer.labels == LABELS
    np.testing.assert_array_equal(scorer.logits(inputs), expected.numpy())


def test_labels_in_another_order_are_refused(data: Path, package: Path) -> None:
    listing = read_listing("folder", data, "test")
    other = Listing(("green", "red", "blue"), listing.clips, listing.symmetry)
    with pytest.raises(BlvnetError, match="label 0 is 'red' to the network and 'green' in the data set"):
        evaluate_listing(PackageScorer(package, "tiny"), other, clips=1, crops=1, jobs=1, tick=ignore)


def test_unreadable_clips_are_named_and_not_scored(data: Path, package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "red"
    folder.mkdir(parents=True)
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (folder / "0.mp4").write_text("no video")
    scorer = PackageScorer(package, "tiny")
    listing = read_listing("folder", tmp_path, "test")
    with pytest.raises(BlvnetError, match="none of 1 files can be read; the first: NotAVideo"):
        evaluate_listing(scorer, listing, clips=1, crops=1, jobs=1, tick=ignore)
    (folder / "1.mp4").write_bytes((data / "test/red/0.mp4").read_bytes())
    listing = read_listing("folder", tmp_path, "test")
    result = evaluate_listing(scorer, listing, clips=1, crops=1, jobs=1, tick=ignore)
    assert result.clips == 1
    assert [item.path.name for item in result.unreadable] == ["0.mp4"]


def test_missing_package_and_checkpoint_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BlvnetError, match="holds no model 'tiny'"):
        PackageScorer(tmp_path, "tiny")
    model = parse_architecture("blvnet-tam-mini", num_classes=3, frames=8, size=32)
    save_checkpoint(tmp_path / "bare.pt", model, build(model).state_dict())
    with pytest.raises(BlvnetError, match=r"bare\.pt does not say its labels"):
        CheckpointScorer(tmp_path / "bare.pt")


def blvnet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(BLVNET), "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def test_command_prints_one_json_document(data: Path, package: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    where = ("--dataset", "folder", "--data", data, "--models", package, "--model", "tiny")
    done = blvnet(*where, "--confusion", picture, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["clips"], document["top1"], document["top5"]) == (6, 1.0, 1.0)
    assert document["per_class"] == dict.fromkeys(LABELS, 1.0)
    assert picture.exists()


def test_command_prints_a_table_and_draws_beside_the_checkpoint(data: Path, checkpoint: Path) -> None:
    done = blvnet("--dataset", "folder", "--data", data, "--checkpoint", checkpoint, "--clips", "2")
    assert done.returncode == 0, done.stderr
    assert "top-5 100.0 % of 6 clips; 0 unreadable" in done.stdout
    assert (checkpoint.parent / "confusion-test.png").exists()


def test_command_wants_a_checkpoint_or_a_package(data: Path, checkpoint: Path) -> None:
    where = ("--dataset", "folder", "--data", data)
    for arguments in ((), ("--checkpoint", checkpoint, "--model", "tiny"), ("--models", data)):
        done = blvnet(*where, *arguments)
        assert done.returncode == 2
        assert "either --checkpoint, or --models and --model" in done.stderr

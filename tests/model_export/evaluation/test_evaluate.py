"""Evaluation: accuracies, scorers of checkpoints and packages, mirrored views, the command."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_export.checkpoints.checkpoint import save_checkpoint
from model_export.datasets import Listing, read_listing
from model_export.datasets.reading import Inputs, Unreadable
from model_export.evaluation.accuracy import Evaluation, evaluate_predictions
from model_export.evaluation.plots import plot_confusion
from model_export.evaluation.predictions import BATCH_VIEWS, predict_listing
from model_export.evaluation.scorers import CheckpointScorer, PackageScorer, Scorer
from model_export.networks.normalise import normalise
from model_export.networks.registry import build, parse_architecture
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import BlvnetError
from tests.model_export.command import blvnet
from tests.support.clips import ClipRecipe, encode
from tests.support.tiny_models import LABELS, write_package

CONFUSION = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 5]])
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def found(confusion: np.ndarray = CONFUSION, pairs: tuple[tuple[int, int], ...] = ((0, 1),)) -> Evaluation:
    right = int(np.trace(confusion))
    ranks = np.array([right, int(confusion.sum()) - right, 0])
    return Evaluation(("left", "right", "still"), confusion, ranks, pairs, ())


def evaluate_listing(
    scorer: Scorer, listing: Listing, *, clips: int = 1, crops: int = 1, jobs: int = 1
) -> Evaluation:
    scored = predict_listing(scorer, listing, clips=clips, crops=crops, jobs=jobs, advance=lambda _: None)
    return evaluate_predictions(scored, listing.symmetry.reversed_pairs())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each colour, with labels in the order of the tiny model."""
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
    """A folder of packages with two versions of the colour meter; the first has other labels."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, version=2, labels=("a", "b", "c"))
    write_package(models, version=10)
    return models


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of an untrained network with its labels."""
    torch.manual_seed(1)
    model = parse_architecture("blvnet-tam-mini", num_classes=3, frames=8, size=32)
    path = tmp_path / "best.pt"
    save_checkpoint(path, model, build(model).state_dict(), {"labels": list(LABELS)})
    return path


def test_accuracies_of_a_known_confusion() -> None:
    result = found()
    assert (result.examples, result.top1_accuracy, result.top5_accuracy) == (25, 22 / 25, 1.0)
    assert result.class_accuracy() == {"left": 0.8, "right": 0.9, "still": 1.0}
    assert result.pair_accuracy() == 17 / 20
    assert result.reversed_rate() == 3 / 20
    assert result.worst_confusions(5) == [("left", "right", 2), ("right", "left", 1)]


def test_mistakes_outside_the_pair_are_not_swaps() -> None:
    result = found(np.array([[5, 0, 5], [0, 10, 0], [0, 0, 5]]))
    assert result.pair_accuracy() == 0.75
    assert result.reversed_rate() == 0.0


def test_without_pairs_or_examples_accuracies_are_none() -> None:
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


def test_confusion_of_labels_with_dollar_signs_is_drawn(tmp_path: Path) -> None:
    result = Evaluation((r"$5 \\ $10", "b"), np.eye(2, dtype=np.int64), np.ones(2, np.int64), (), ())
    plot_confusion(result, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").exists()


@pytest.mark.parametrize("count", [2, 400])
def test_confusion_picture_has_a_bounded_size_for_any_labels(tmp_path: Path, count: int) -> None:
    labels = tuple(
        f"{index} {'Trying to pour something into something, but missing it ' * 2}" for index in range(count)
    )
    result = Evaluation(labels, np.eye(count, dtype=np.int64), np.ones(count, np.int64), (), ())
    plot_confusion(result, tmp_path / "confusion.png")
    width, height = struct.unpack(">II", (tmp_path / "confusion.png").read_bytes()[16:24])
    assert 400 <= width == height <= 3000


def test_package_is_scored_in_its_highest_version(data: Path, package: Path) -> None:
    listing = read_listing("folder", data, "test")
    counts: list[int] = []
    scorer = PackageScorer(package, "tiny")
    scored = predict_listing(scorer, listing, clips=2, crops=3, jobs=2, advance=counts.append)
    result = evaluate_predictions(scored)
    assert result.confusion.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert counts == [1] * 6


def test_wrongly_filed_video_lowers_the_accuracy(data: Path, package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "green"
    folder.mkdir(parents=True)
    (folder / "red.mp4").write_bytes((data / "test/red/0.mp4").read_bytes())
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    listing = read_listing("folder", tmp_path, "test")
    result = evaluate_listing(PackageScorer(package, "tiny"), listing)
    assert result.top1_accuracy == 0.0
    assert result.worst_confusions(1) == [("green", "red", 1)]


def test_checkpoint_logits_are_the_networks_own(checkpoint: Path, data: Path) -> None:
    scorer = CheckpointScorer(checkpoint)
    inputs = decode_video(data / "test/red/0.mp4", scorer.clip, clips=2).inputs
    streams = [normalise(torch.from_numpy(inputs[name])) for name in ("little", "big")]
    with torch.inference_mode():
        expected = scorer.network(*streams).mean(1)
    assert scorer.labels == LABELS
    np.testing.assert_array_equal(scorer.logits(inputs), expected.numpy())


def test_labels_in_another_order_are_refused(data: Path, package: Path) -> None:
    listing = read_listing("folder", data, "test")
    other = Listing(("green", "red", "blue"), listing.examples, listing.symmetry)
    with pytest.raises(BlvnetError, match="label 0 is 'red' in the network and 'green' in the data set"):
        evaluate_listing(PackageScorer(package, "tiny"), other)


def test_unreadable_clips_are_named_and_not_scored(data: Path, package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "red"
    folder.mkdir(parents=True)
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (folder / "0.mp4").write_text("no video")
    scorer = PackageScorer(package, "tiny")
    listing = read_listing("folder", tmp_path, "test")
    with pytest.raises(BlvnetError, match="none of 1 files can be read; the first: NotAVideo"):
        evaluate_listing(scorer, listing)
    (folder / "1.mp4").write_bytes((data / "test/red/0.mp4").read_bytes())
    listing = read_listing("folder", tmp_path, "test")
    result = evaluate_listing(scorer, listing)
    assert result.examples == 1
    assert [item.path.name for item in result.unreadable] == ["0.mp4"]


def test_missing_package_and_checkpoint_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BlvnetError, match=r"there is no model package|contains no model 'tiny'"):
        PackageScorer(tmp_path, "tiny")
    model = parse_architecture("blvnet-tam-mini", num_classes=3, frames=8, size=32)
    save_checkpoint(tmp_path / "bare.pt", model, build(model).state_dict())
    with pytest.raises(BlvnetError, match=r"bare\.pt contains no labels"):
        CheckpointScorer(tmp_path / "bare.pt")


def test_command_prints_one_json_document(data: Path, package: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    where = ("--dataset", "folder", "--data", data, "--models", package, "--model", "tiny")
    done = blvnet("evaluate", *where, "--confusion", picture, "--json")
    assert done.status == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["clips"], document["top1"], document["top5"]) == (6, 1.0, 1.0)
    assert document["per_class"] == dict.fromkeys(LABELS, 1.0)
    assert picture.exists()


def test_command_prints_a_table_and_draws_next_to_the_checkpoint(data: Path, checkpoint: Path) -> None:
    done = blvnet(
        "evaluate", "--dataset", "folder", "--data", data, "--checkpoint", checkpoint, "--clips", "2"
    )
    assert done.status == 0, done.stderr
    assert "top-5 100.0 % of 6 clips; 0 unreadable" in done.stdout
    assert (checkpoint.parent / "confusion-test.png").exists()


def test_command_prints_labels_and_groups_as_they_are(data: Path, tmp_path: Path) -> None:
    labels = ("[bold]", "[green]", ":x:")
    renamed = shutil.copytree(data, tmp_path / "data")
    for old, new in zip(LABELS, labels, strict=True):
        (renamed / "test" / old).rename(renamed / "test" / new)
    (renamed / "labels.json").write_text(json.dumps(labels))
    rows = [f"{number}.mp4,[/{number}]" for number in range(2)]
    (renamed / "groups.csv").write_text("\n".join(rows))
    models = tmp_path / "models"
    write_package(models, version=1, labels=labels)
    done = blvnet("evaluate", "--dataset", "folder", "--data", renamed, "--models", models, "--model", "tiny")
    assert done.status == 0, done.stderr
    for text in (*labels, "[/0]", "[/1]"):
        assert f" {text} " in done.stdout


def test_command_needs_a_checkpoint_or_a_package(data: Path, checkpoint: Path) -> None:
    where = ("--dataset", "folder", "--data", data)
    for arguments in (
        (),
        ("--checkpoint", checkpoint, "--model", "tiny"),
        ("--models", data),
        ("--model", "tiny"),
    ):
        done = blvnet("evaluate", *where, *arguments)
        assert done.status == 2
        assert "give --checkpoint, or --models and --model" in done.stderr


class SideScorer:
    """Scores on which half of the frame the light is, so that a mirror swaps the labels."""

    labels: tuple[str, ...] = ("left", "right", "none")
    clip = ClipSpec(2, (InputSpec("frames", Frames.ALL, 32, 32),))
    mirror: Sequence[int | None] | None = None

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        light = inputs["frames"].mean(axis=(1, 2, 4))
        return np.stack([light[:, :16].mean(1), light[:, 16:].mean(1), np.full(len(light), 64)], 1).astype(
            np.float32
        )


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    """A video that is light on the left and one that is light on the right."""
    for label, half in (("left", slice(0, 16)), ("right", slice(16, 32)), ("none", slice(0))):
        image = np.zeros((32, 32, 3), np.uint8)
        image[:, half] = 255
        folder = tmp_path / "test" / label
        folder.mkdir(parents=True)
        (folder / "0.mp4").write_bytes(encode([image] * 4, ClipRecipe(width=32, height=32)))
    (tmp_path / "labels.json").write_text(json.dumps(SideScorer.labels))
    return tmp_path


def test_mirrored_views_count_for_the_mirrored_label(sides: Path) -> None:
    (sides / "symmetry.json").write_text('{"mirrored": {"left": "right", "right": "left", "*": "*"}}')
    listing = read_listing("folder", sides, "test")
    scored = predict_listing(SideScorer(), listing, clips=2, crops=10, jobs=1, advance=lambda _: None)
    plain = predict_listing(SideScorer(), listing, clips=1, crops=1, jobs=1, advance=lambda _: None)
    np.testing.assert_allclose(scored.logits, plain.logits, atol=1)
    assert evaluate_predictions(scored).class_accuracy() == {"left": 1.0, "right": 1.0, "none": 1.0}


def test_symmetry_of_the_model_file_is_enough(sides: Path) -> None:
    scorer = SideScorer()
    scorer.mirror = (1, 0, 2)
    result = evaluate_listing(scorer, read_listing("folder", sides, "test"), crops=10)
    assert result.top1_accuracy == 1.0


@pytest.mark.parametrize("mirror", [None, (0, None, 2)])
def test_mirrored_views_of_unknown_labels_are_refused(
    sides: Path, mirror: tuple[int | None, ...] | None
) -> None:
    scorer = SideScorer()
    scorer.mirror = mirror
    listing = read_listing("folder", sides, "test")
    with pytest.raises(
        BlvnetError, match=r"mirrored 'left' is unknown: use --crops 5, or add a symmetry.json"
    ):
        evaluate_listing(scorer, listing, crops=10)
    assert evaluate_listing(scorer, listing, crops=5).top1_accuracy == 1.0


def test_views_are_scored_a_few_at_a_time(sides: Path) -> None:
    class Counting(SideScorer):
        most = 0

        def logits(self, inputs: Inputs) -> NDArray[np.float32]:
            self.most = max(self.most, len(inputs["frames"]))
            return super().logits(inputs)

    scorer = Counting()
    evaluate_listing(scorer, read_listing("folder", sides, "test"), clips=10, crops=3)
    assert scorer.most == BATCH_VIEWS


def test_mean_class_accuracy_weighs_classes_alike() -> None:
    assert found().mean_class_accuracy == pytest.approx((0.8 + 0.9 + 1.0) / 3)
    empty = found(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 4]]))
    assert empty.mean_class_accuracy == pytest.approx((0.5 + 1.0) / 2)


def test_command_writes_predictions(data: Path, package: Path, tmp_path: Path) -> None:
    file = tmp_path / "predictions.npz"
    where = ("--dataset", "folder", "--data", data, "--models", package, "--model", "tiny")
    done = blvnet("evaluate", *where, "--predictions", file, "--json")
    assert done.status == 0, done.stderr
    with np.load(file) as saved:
        assert saved["labels"].tolist() == list(LABELS)
        assert saved["targets"].tolist() == [0, 0, 1, 1, 2, 2]
        assert saved["logits"].argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2]
        assert saved["paths"][0] == str(data / "test/red/0.mp4")
    assert json.loads(done.stdout)["mean_class"] == 1.0
    nowhere = blvnet("evaluate", *where, "--predictions", tmp_path / "nowhere/p.npz")
    assert nowhere.status == 1
    assert nowhere.stderr.splitlines()[-1].endswith("cannot be written (No such file or directory)")


def test_command_refuses_other_numbers_of_crops(data: Path, package: Path) -> None:
    where = ("--dataset", "folder", "--data", data, "--models", package, "--model", "tiny")
    done = blvnet("evaluate", *where, "--crops", "4")
    assert done.status == 2
    assert "must be one of 1, 3, 5, 10" in done.stderr


@pytest.mark.parametrize("option", [("--predictions", "nowhere/p.npz"), ("--confusion", "nowhere/c.png")])
def test_output_in_a_missing_folder_is_refused_before_anything_is_read(
    tmp_path: Path, option: tuple[str, str]
) -> None:
    split = ("--dataset", "folder", "--data", tmp_path)
    result = blvnet("evaluate", "--checkpoint", "none.pt", *split, *option)
    assert result.status == 1
    assert result.stderr == f"blvnet: {option[1]} cannot be written (No such file or directory)\n"


def test_picture_in_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    split = ("--dataset", "folder", "--data", tmp_path)
    result = blvnet("evaluate", "--checkpoint", "none.pt", *split, "--confusion", "matrix.xyz")
    assert result.status == 1
    assert "matrix.xyz: pictures are " in result.stderr
    assert "choose one of them, such as .png" in result.stderr

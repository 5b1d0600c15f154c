"""Videos with several labels: from a listing through training and export to the running service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_export.checkpoints.checkpoint import load_network, read_checkpoint
from model_export.datasets import Example, Listing, Symmetry, read_listing
from model_export.datasets.reading import read_views
from model_export.networks.normalise import normalise
from model_export.training.clips.batches import Draw, SplitData
from model_export.training.clips.frame_cache import Pixels
from model_export.training.config import Amp, Augmentation, TrainConfig
from model_export.training.run_log import plot_curves, read_log
from service.errors import BlvnetError
from service.packages.manifest import MANIFEST_FILE, Scores, read_manifest
from tests.model_export.command import Result, blvnet
from tests.model_export.training.test_trainer import (
    CONFIG,
    COUNT,
    FRAMES,
    SIZE,
    StopAfter,
    assert_same,
    saved,
    trainer,
)
from tests.support.clips import ClipRecipe, encode
from tests.support.server import running_server

BLVNET = Path(sys.executable).with_name("blvnet")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LABELS = ("red", "green")
# The labels of the videos, as channels of their colours.
VIDEOS = {"red": (0,), "green": (1,), "yellow": (0, 1)}
COPIES = 4


class ColouredClips:
    """Red clips for examples 0, 3, ...; green ones for 1, 4, ...; and ones of both colours."""

    phases = 1
    together = 1
    crops = 1

    def __len__(self) -> int:
        return COUNT

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        rng = np.random.default_rng(draw.index)
        level = np.zeros(3)
        level[list(example.labels)] = 160
        shapes = [(FRAMES, side, side, 3) for side in (SIZE, SIZE // 2)]
        return tuple((level + rng.integers(0, 60, shape)).astype(np.uint8) for shape in shapes)


def coloured(*, multi_label: bool = True) -> SplitData:
    labels = list(VIDEOS.values())
    examples = tuple(
        Example(Path(f"{index}.mp4"), labels[index % 3][0], others=labels[index % 3][1:])
        for index in range(COUNT)
    )
    unchanged = Symmetry((0, 1), (0, 1))
    return SplitData(Listing(LABELS, examples, unchanged, multi_label=multi_label), ColouredClips())


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**vars(CONFIG), "amp": Amp.OFF, **changes})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are slower with a second thread on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of twelve training and three validation videos; every third has both labels."""
    root = tmp_path_factory.mktemp("data")
    (root / "labels.txt").write_text("\n".join(LABELS))
    rng = np.random.default_rng(0)
    for split, copies in (("train", COPIES), ("val", 1)):
        lines = []
        for name, labels in VIDEOS.items():
            for copy in range(copies):
                colour = np.zeros(3, np.uint8)
                colour[list(labels)] = 200
                images = [colour + rng.integers(0, 40, (40, 48, 1), np.uint8) for _ in range(6)]
                file = root / f"{split}-{name}-{copy}.mp4"
                file.write_bytes(encode(images, ClipRecipe(width=48, height=40)))
                lines.append(f"{file.name} {','.join(map(str, labels))}")
        (root / f"{split}.txt").write_text("\n".join(lines))
    return root


def arguments(data: Path, run: Path, *options: object) -> list[object]:
    chosen = [
        "--dataset",
        "list",
        "--data",
        data,
        "--arch",
        "blvnet-tam-mini",
        "--frames",
        "4",
        "--size",
        "32",
    ]
    chosen += ["--out", run, "--epochs", "2", "--batch-size", "4", "--log-every", "1", "--workers", "0"]
    return ["train", *chosen, "--amp", "off", *options]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run that learns both labels; its first weights that rank all videos right are in `best.pt`."""
    folder = tmp_path_factory.mktemp("several") / "run"
    options = ("--epochs", "12", "--lr", "0.1", "--no-augmentation", "--tensorboard", "--ema", "0.5")
    result = blvnet(*arguments(data, folder, *options))
    assert result.status == 0, result.stderr
    return folder, result


@pytest.fixture(scope="module")
def models(run: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of that run, and an older one without the field `scores`."""
    folder = tmp_path_factory.mktemp("models")
    done = blvnet("export", "--checkpoint", run[0] / "last.pt", "--out", folder, "--name", "several")
    assert done.status == 0, done.stderr
    shutil.copytree(folder / "several", folder / "older")
    file = folder / "older" / "1" / MANIFEST_FILE
    document = json.loads(file.read_text()) | {"name": "older"}
    assert document.pop("scores") == "sigmoid"
    file.write_text(json.dumps(document))
    return folder


def logits_of(checkpoint: Path, video: Path) -> torch.Tensor:
    network, model, _ = load_network(checkpoint)
    clip = model.clip_spec()
    views = read_views(Example(video, 0), clip)
    with torch.inference_mode():
        logits: torch.Tensor = network(
            *(normalise(torch.from_numpy(views[item.name])) for item in clip.inputs)
        ).mean(1)
    return logits[0]


def test_best_weights_are_chosen_by_mean_average_precision(run: tuple[Path, Result]) -> None:
    folder, result = run
    epochs = [line for line in read_log(folder) if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 13))
    assert max(line["validation_map"] for line in epochs) == 1.0
    assert not any("validation_top1" in line for line in epochs)
    best = saved(folder, "best.pt")
    assert (best["best_map"], best["scores"], best["labels"]) == (1.0, "sigmoid", list(LABELS))
    assert "best_top1" not in best
    assert "mAP 100.0 % (best)" in result.stderr
    assert "best validation mAP 100.0 %" in result.stderr
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_the_measure_under_its_own_name(run: tuple[Path, Result]) -> None:
    folder, _ = run
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    logged = [line for line in read_log(folder) if line["kind"] == "epoch"]
    found = [(item.step, item.value) for item in events.Scalars("epoch/validation_map")]
    assert found == [(line["step"], pytest.approx(line["validation_map"])) for line in logged]


def test_network_tells_both_labels_of_a_video(run: tuple[Path, Result], data: Path) -> None:
    for name, labels in VIDEOS.items():
        logits = logits_of(run[0] / "last.pt", data / f"val-{name}-0.mp4")
        assert [index for index, logit in enumerate(logits.tolist()) if logit > 0] == list(labels), name


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.5, "augmentation": Augmentation(mixup=0.4, cutmix=0.5), "label_smoothing": 0.1}],
    ids=["plain", "averaged and mixed"],
)
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    options = config(**changes)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trainer(whole, options, coloured()).run(threading.Event()).finished
    assert not trainer(parts, options, coloured()).run(StopAfter(4)).finished
    torch.manual_seed(99)
    assert trainer(parts, options, coloured()).run(threading.Event(), resume=True).finished
    for name in ("last.pt", "best.pt"):
        first, second = saved(whole, name), saved(parts, name)
        first.pop("elapsed_s")
        second.pop("elapsed_s")
        assert_same(first, second)


def test_run_with_one_label_per_video_does_not_continue_with_several(tmp_path: Path) -> None:
    trainer(tmp_path, config(), coloured(multi_label=False)).run(threading.Event())
    with pytest.raises(BlvnetError, match="with another number of labels per video; give the same again"):
        trainer(tmp_path, config(), coloured()).run(threading.Event(), resume=True)


def test_curves_name_the_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    from matplotlib.axes import Axes

    def recorded(self: Axes, **properties: Any) -> Any:
        drawn.append(properties)
        return original(self, **properties)

    original = Axes.set
    trainer(tmp_path, config(), coloured()).run(threading.Event())
    monkeypatch.setattr(Axes, "set", recorded)
    plot_curves(tmp_path)
    labels = [properties["ylabel"] for properties in drawn if "ylabel" in properties]
    assert labels == ["binary cross-entropy", "validation mAP, %"]


def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(data: Path, tmp_path: Path) -> None:
    exact = ("--dropout", "0", "--noise", "0", "--lr", "0.001", "--no-cached", "--class-weights", "balanced")
    one, two = tmp_path / "one", tmp_path / "two"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for command, folder, batch in (((), one, "4"), ((*torchrun, "--no-python"), two, "2")):
        options = arguments(data, folder, *exact, "--batch-size", batch, "--batch-norm", "sync")
        done = subprocess.run(
            [*command, str(BLVNET), *map(str, options)],
            capture_output=True,
            text=True,
            timeout=280,
            env=ENVIRONMENT,
        )
        assert done.returncode == 0, done.stderr
    first, second = (
        [line for line in read_log(folder) if line["kind"] in ("step", "epoch")] for folder in (one, two)
    )
    for line, other in zip(first, second, strict=True):
        for name in {"loss", "validation_loss", "validation_map"} & line.keys():
            assert other[name] == pytest.approx(line[name], abs=3e-4)
    assert saved(two)["best_map"] == pytest.approx(saved(one)["best_map"])


def test_weights_and_smoothing_together_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    options = ("--class-weights", "balanced", "--label-smoothing", "0.1")
    result = blvnet(*arguments(data, tmp_path / "run", *options))
    assert (result.status, result.stderr.count("\n")) == (1, 3)  # two steps of reading
    assert "--class-weights balanced multiplies what --label-smoothing gives" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", [("--top-k", "3"), ("--confusion", "matrix.png")], ids=lambda item: item[0]
)
def test_evaluation_refuses_what_needs_one_label(
    run: tuple[Path, Result], data: Path, option: tuple[str, str]
) -> None:
    result = blvnet(
        "evaluate", "--checkpoint", run[0] / "best.pt", "--dataset", "list", "--data", data, *option
    )
    assert result.status == 1
    assert f"{option[0]} needs videos with one label each, and these have several" in result.stderr


def test_splits_decide_together_whether_videos_have_several_labels(data: Path, tmp_path: Path) -> None:
    for file in data.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "val.txt").unlink()
    (tmp_path / "val.txt").write_text("val-red-0.mp4 0\nval-green-0.mp4 1\n")
    assert read_listing("list", tmp_path, "val").multi_label
    (tmp_path / "train.txt").unlink()
    (tmp_path / "train.txt").write_text("train-red-0.mp4 0,0\n")
    assert not read_listing("list", tmp_path, "val").multi_label


def test_package_says_that_its_scores_are_sigmoids(models: Path, run: tuple[Path, Result]) -> None:
    folder = models / "several" / "1"
    manifest = read_manifest(folder)
    assert manifest.scores is Scores.SIGMOID
    assert manifest.provenance["training"]["best_map"] == 1.0
    card = (folder / "MODEL_CARD.md").read_text()
    assert "best mAP on the validation split in training: 100.0 %" in card
    assert "A video may show several of its labels" in card
    assert "always returns one of its labels" not in card
    assert read_checkpoint(folder).training["scores"] == "sigmoid"
    assert run[1].stderr.count("Traceback") == 0


def test_safetensors_keep_the_kind_of_scores(run: tuple[Path, Result], tmp_path: Path) -> None:
    assert blvnet("convert", run[0] / "best.pt", tmp_path / "best.safetensors").status == 0
    assert read_checkpoint(tmp_path / "best.safetensors").training["scores"] == "sigmoid"


def test_unknown_kind_of_scores_is_refused(run: tuple[Path, Result], tmp_path: Path) -> None:
    from model_export.checkpoints.checkpoint import save_checkpoint

    checkpoint = read_checkpoint(run[0] / "best.pt")
    assert checkpoint.config is not None
    training = {**checkpoint.training, "scores": "later"}
    save_checkpoint(tmp_path / "later.pt", checkpoint.config, checkpoint.weights, training)
    result = blvnet("export", "--checkpoint", tmp_path / "later.pt", "--out", tmp_path / "models")
    assert result.status == 1
    assert "its scores are 'later', and this version knows softmax and sigmoid" in result.stderr
    assert not (tmp_path / "models").exists() or not any((tmp_path / "models").iterdir())


def test_package_and_checkpoint_have_the_same_mean_average_precision(
    models: Path, run: tuple[Path, Result], data: Path
) -> None:
    split = ("--dataset", "list", "--data", data, "--json")
    of_checkpoint = blvnet("evaluate", "--checkpoint", run[0] / "best.pt", *split)
    of_package = blvnet("evaluate", "--models", models, "--model", "several", *split)
    for result in (of_checkpoint, of_package):
        assert result.status == 0, result.stderr
        document = json.loads(result.stdout)
        assert (document["map"], document["clips"]) == (1.0, 3)


def test_service_answers_with_the_probability_of_each_label(
    models: Path, run: tuple[Path, Result], data: Path
) -> None:
    video = data / "val-yellow-0.mp4"
    logits = logits_of(run[0] / "last.pt", video).double()
    with running_server(models=models, provider="cpu") as server:
        described = {item["name"]: item["scores"] for item in server.get("/v1/models").json()["models"]}
        several = server.post(video.read_bytes(), model="several", evidence=True).json()
        older = server.post(video.read_bytes(), model="older").json()
    assert described == {"several": "sigmoid", "older": "softmax"}
    scores = {item["index"]: item["score"] for item in several["predictions"]}
    assert [scores[0], scores[1]] == pytest.approx(torch.sigmoid(logits).tolist(), abs=1e-4)
    assert min(scores.values()) > 0.5
    order = [item["index"] for item in several["predictions"]]
    assert several["evidence"]["runner_up"] is None
    means = np.mean(several["evidence"]["margins"], axis=0)
    assert means == pytest.approx(logits[order].tolist(), abs=1e-3)
    softmax = {item["index"]: item["score"] for item in older["predictions"]}
    assert [softmax[0], softmax[1]] == pytest.approx(torch.softmax(logits, 0).tolist(), abs=1e-4)

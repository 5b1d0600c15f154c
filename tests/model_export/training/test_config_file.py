"""Options of `blvnet train` from the command line, YAML files and recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_export.commands import train as command
from model_export.training.config import (
    Amp,
    Augmentation,
    BatchNorm,
    CropMode,
    Decay,
    Offsets,
    Schedule,
    TrainConfig,
)
from service.errors import BlvnetError
from tests.model_export.command import blvnet


@dataclass
class Started:
    """The runs that commands have started, and their data on disk."""

    data: Path
    runs: list[dict[str, Any]] = field(default_factory=list)

    def train(self, run: Path, *options: object) -> str:
        """Start a run, which ends before its first step; return the last line of its errors."""
        required = ("--dataset", "folder", "--data", self.data, "--arch", "blvnet-tam-mini", "--out", run)
        return blvnet("train", *required, *options).stderr.strip().splitlines()[-1]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    data = tmp_path / "data"
    for place in ("train/up", "train/down", "val/up", "val/down"):
        (data / place).mkdir(parents=True)
        (data / place / "video.mp4").touch()
    found = Started(data)

    class Stopped:
        def __init__(
            self, _network: Any, model: Any, _train: Any, _val: Any, config: Any, run: Any, **_: Any
        ):
            self.config = config
            found.runs.append({"model": model, "config": config, "run": run})

        def run(self, *_: Any, **__: Any) -> None:
            raise BlvnetError("enough")

    monkeypatch.setattr(command, "Trainer", Stopped)
    return found


def test_paper_recipe_is_that_of_the_authors_and_every_part_can_be_overridden(
    started: Started, tmp_path: Path
) -> None:
    assert started.train(tmp_path / "one", "--recipe", "paper").endswith("enough")
    assert started.train(
        tmp_path / "two", "--crop", "fixed", "--recipe", "paper", "--schedule", "step", "--clip-norm", "2"
    ).endswith("enough")
    paper, changed = (run["config"] for run in started.runs)
    only_mirrored = Augmentation(**{**vars(Augmentation.none()), "mirror": 0.5})
    assert paper == TrainConfig(
        epochs=50, batch_size=64, lr=0.01, warmup_epochs=0, weight_decay=5e-4, decay=Decay.ALL, clip_norm=0,
        amp=Amp.OFF, offsets=Offsets.SEGMENT, crop=CropMode.MULTI_SCALE, augmentation=only_mirrored,
    )  # fmt: skip
    assert (changed.crop, changed.schedule, changed.clip_norm) == (CropMode.FIXED, Schedule.STEP, 2)
    assert changed.decay is Decay.ALL


def test_file_gives_options_and_the_command_line_overrides_them(started: Started, tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(
        "recipe: paper\nepochs: 8\nlr: 1e-3\namp: off\nschedule: step\nlr-steps: [2, 5.5]\n"
        "batch_norm: sync\nframes: null\ncutmix: 1\n"
    )
    assert started.train(tmp_path / "run", "--config", path, "--epochs", "9").endswith("enough")
    found = started.runs[0]["config"]
    assert (found.epochs, found.lr, found.amp, found.lr_steps) == (9, 1e-3, Amp.OFF, (2.0, 5.5))
    assert (found.batch_norm, found.batch_size, found.augmentation.cutmix) == (BatchNorm.SYNC, 64, 1.0)


def test_run_writes_the_file_that_starts_it_again(started: Started, tmp_path: Path) -> None:
    first = tmp_path / "first"
    given = ("--recipe", "paper", "--epochs", 3, "--frames", 6, "--mixup", 0.2, "--stem", "shared")
    assert started.train(first, *given).endswith("enough")
    written = yaml.safe_load((first / "config.yaml").read_text())
    assert (written["epochs"], written["mixup"], written["dataset"]) == (3, 0.2, "folder")
    done = blvnet("train", "--config", first / "config.yaml", "--out", tmp_path / "second")
    assert done.stderr.strip().endswith("enough")
    one, other = started.runs
    assert (one["config"], one["model"]) == (other["config"], other["model"])
    assert other["run"] == tmp_path / "second"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rate: 1", "has the unknown option 'learning_rate'"),
        ("epoch: 1", "has the unknown option 'epoch'; did you mean 'epochs'?"),
        ("resume: true", "has the unknown option 'resume'"),
        ("lr: fast", "Invalid value for '--lr'"),
        ("lr: [1, 2]", "lr must be a single value"),
        ("lr_steps: 3", "lr_steps must be a list"),
        ("- lr", "must have lines such as 'epochs: 50'"),
        ("lr: [", "is not YAML"),
        ("recipe: best", "unknown recipe 'best'; there is paper"),
    ],
)
def test_bad_file_is_one_line_that_names_the_key(
    started: Started, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(content)
    line = started.train(tmp_path / "run", "--config", path)
    assert message in line
    assert line.startswith("blvnet: ")
    assert started.runs == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--offsets", "segment"), "--offsets segment chooses frames as clips are drawn: add --no-cached"),
        (("--crop", "multi-scale"), "--crop multi-scale cuts frames as clips are drawn: add --no-cached"),
        (("--batch-norm", "frozen"), "keeps the statistics of a trained network: add --init"),
        (("--compile", "--checkpointing"), "--compile does not go with --checkpointing"),
        (("--mirror", "1.5"), "Invalid value for '--mirror': Input should be less than or equal to 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    started: Started, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in started.train(tmp_path / "run", *options)
    assert started.runs == []


def test_no_augmentation_leaves_the_strengths_that_are_given(started: Started, tmp_path: Path) -> None:
    started.train(tmp_path / "run", "--no-augmentation", "--mirror", "0.3", "--no-cached")
    strength = started.runs[0]["config"].augmentation
    assert strength == Augmentation(**{**vars(Augmentation.none()), "mirror": 0.3})

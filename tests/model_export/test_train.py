"""Training runs: exact resume, clean stops, a schedule as stated, and what a run refuses."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from model_export.cache import Pixels
from model_export.checkpoint import read_checkpoint
from model_export.config import ModelConfig
from model_export.datasets import Clip, Listing, Symmetry
from model_export.loading import Draw
from model_export.networks.names import build, parse_architecture
from model_export.runlog import RunLog, plot_curves, read_log
from model_export.train import (
    Half,
    Outcome,
    Trainer,
    derived_generator,
    learning_rate,
    make_optimizer,
    stopping_on_signals,
)
from model_export.train_config import Amp, Augmentation, TrainConfig, train_config_from_dict
from service.errors import BlvnetError
from tests.clips import ClipRecipe, encode

LABELS = ("dark", "bright")
FRAMES, SIZE = 4, 32
COUNT = 8
BLVNET = Path(sys.executable).with_name("blvnet")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
CONFIG = TrainConfig(
    epochs=3, batch_size=4, lr=0.05, warmup_epochs=1, phases=1, workers=0, log_every=1, save_every_s=1e9
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and wait for it where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class MadeClips:
    """Noise around 60 for even clips and around 200 for odd ones, without files."""

    phases = 1
    crops = 1

    def __len__(self) -> int:
        return COUNT

    def load(self, draw: Draw, clip: Clip) -> tuple[Pixels, ...]:
        rng = np.random.default_rng(draw.index)
        level = (60, 200)[draw.index % 2]
        shapes = [(FRAMES, side, side, 3) for side in (SIZE, SIZE // 2)]
        return tuple((level + rng.integers(-40, 40, shape)).astype(np.uint8) for shape in shapes)


class StopAfter(threading.Event):
    """A stop that is requested after it was asked for `questions` times."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def listing(labels: tuple[str, ...] = LABELS) -> Listing:
    clips = tuple(Clip(Path(f"{index}.mp4"), index % 2) for index in range(COUNT))
    nothing = (None,) * len(labels)
    return Listing(labels, clips, Symmetry(nothing, nothing))


def trainer(
    run: Path, config: TrainConfig = CONFIG, half: Half | None = None, dropout: float = 0.2
) -> Trainer:
    """A trainer with a fresh network, the same one each time."""
    run.mkdir(exist_ok=True)
    half = half or Half(listing(), MadeClips())
    torch.manual_seed(0)
    model = small_model(dropout)
    network = build(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    console = Console(file=io.StringIO(), force_terminal=False)
    return Trainer(network, model, half, half, config, run, origin={"dataset": "made"}, console=console)


def small_model(dropout: float = 0.2) -> ModelConfig:
    return parse_architecture(
        "blvnet-tam-mini", num_classes=len(LABELS), frames=FRAMES, size=SIZE, dropout=dropout
    )


def run_all(run: Path, config: TrainConfig = CONFIG) -> Outcome:
    return trainer(run, config).run(threading.Event())


def saved(run: Path, name: str = "last.pt") -> dict[str, Any]:
    checkpoint = read_checkpoint(run / name)
    return {"weights": checkpoint.weights, **checkpoint.training}


def assert_same(first: object, second: object) -> None:
    """Equal bit by bit, through containers."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict) and isinstance(second, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("amp", list(Amp))
@pytest.mark.parametrize(("questions", "step"), [(1, 1), (4, 3)])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, questions: int, step: int, amp: Amp
) -> None:
    config = TrainConfig(**{**vars(CONFIG), "amp": amp})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_all(whole, config).finished
    stopped = trainer(parts, config).run(StopAfter(questions))
    assert (stopped.finished, stopped.step) == (False, step)
    torch.manual_seed(99)
    assert trainer(parts, config).run(threading.Event(), resume=True).finished
    for name in ("last.pt", "best.pt"):
        first, second = saved(whole, name), saved(parts, name)
        first.pop("elapsed_s")
        second.pop("elapsed_s")
        assert_same(first, second)
    assert losses(whole) == losses(parts)


def losses(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(run) if line["kind"] == "step"]


def test_log_drops_the_steps_that_a_resumed_run_repeats(tmp_path: Path) -> None:
    log = RunLog(tmp_path, None)
    for step in (1, 2, 3):
        log.add("step", step, loss=1.0)
    RunLog(tmp_path, 2).add("resume", 2)
    assert [(line["kind"], line["step"]) for line in read_log(tmp_path)] == [
        ("step", 1),
        ("step", 2),
        ("resume", 2),
    ]


def test_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    RunLog(tmp_path, None).add("step", 1, loss=1.0)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert len(read_log(tmp_path)) == 1


def test_training_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(CONFIG), "epochs": 8, "augmentation": Augmentation.none()})
    outcome = run_all(tmp_path / "run", config)
    assert outcome == Outcome(True, 16, 1.0, outcome.elapsed_s)
    epochs = [line for line in read_log(tmp_path / "run") if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 9))
    assert max(line["validation_top1"] for line in epochs) == 1.0
    assert saved(tmp_path / "run", "best.pt")["best_top1"] == 1.0


def test_checkpoint_says_what_was_trained(tmp_path: Path) -> None:
    run_all(tmp_path)
    training = saved(tmp_path, "best.pt")
    assert training["labels"] == list(LABELS)
    assert training["dataset"] == "made"
    assert train_config_from_dict(training["options"]) == CONFIG
    assert training["clip"]["inputs"][1] == {"name": "big", "frames": "odd", "size": 16, "scale": 16}
    assert read_checkpoint(tmp_path / "best.pt").config == small_model()
    assert "optimizer" not in training


def test_curves_are_drawn_from_the_log(tmp_path: Path) -> None:
    run_all(tmp_path)
    (tmp_path / "curves.png").unlink()
    assert plot_curves(tmp_path).read_bytes().startswith(b"\x89PNG")


class Watch(threading.Event):
    """Never set; notes which step `last.pt` holds each time it is asked."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.folder = run
        self.seen: set[int] = set()

    def is_set(self) -> bool:
        if (self.folder / "last.pt").exists():
            self.seen.add(saved(self.folder)["step"])
        return False


def test_checkpoints_are_written_within_epochs_as_time_passes(tmp_path: Path) -> None:
    often, seldom = Watch(tmp_path / "often"), Watch(tmp_path / "seldom")
    trainer(often.folder, TrainConfig(**{**vars(CONFIG), "save_every_s": 1e-9})).run(often)
    trainer(seldom.folder).run(seldom)
    assert {1, 2, 3, 4, 5} <= often.seen
    assert seldom.seen == {2, 4}


@pytest.mark.parametrize(
    ("change", "what"),
    [({"lr": 0.01}, "options"), ({"seed": 5}, "options"), ({"epochs": 9}, "options")],
)
def test_resume_with_other_options_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    run_all(tmp_path)
    other = TrainConfig(**{**vars(CONFIG), **change})
    with pytest.raises(BlvnetError, match=f"was written by a run with another {what}"):
        trainer(tmp_path, other).run(threading.Event(), resume=True)


def test_resume_with_other_labels_or_network_is_refused(tmp_path: Path) -> None:
    run_all(tmp_path)
    half = Half(listing(("bright", "dark")), MadeClips())
    with pytest.raises(BlvnetError, match="another labels"):
        trainer(tmp_path, half=half).run(threading.Event(), resume=True)
    with pytest.raises(BlvnetError, match="another network"):
        trainer(tmp_path, dropout=0.0).run(threading.Event(), resume=True)


def test_resume_may_change_what_decides_nothing(tmp_path: Path) -> None:
    trainer(tmp_path).run(StopAfter(1))
    shown_otherwise = TrainConfig(**{**vars(CONFIG), "log_every": 2, "save_every_s": 60.0})
    assert trainer(tmp_path, shown_otherwise).run(threading.Event(), resume=True).finished


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    broken = trainer(tmp_path)
    with torch.no_grad():
        for parameter in broken.network.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(BlvnetError, match="the loss at step 1 is nan"):
        broken.run(threading.Event())


class OneUnreadable(MadeClips):
    """The third clip cannot be read."""

    def load(self, draw: Draw, clip: Clip) -> tuple[Pixels, ...]:
        if draw.index == 2:
            raise BlvnetError("broken")
        return super().load(draw, clip)


def test_unreadable_clips_are_logged_once_by_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, half=Half(listing(), OneUnreadable()))
    outcome = run.run(threading.Event())
    named = [line for line in read_log(tmp_path) if line["kind"] == "unreadable"]
    assert outcome.finished
    assert [(line["path"], line["reason"]) for line in named] == [("2.mp4", "BlvnetError: broken")]
    assert isinstance(run.console.file, io.StringIO)
    assert run.console.file.getvalue().count("unreadable: 2.mp4") == 1


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = TrainConfig(epochs=4, warmup_epochs=1, lr=0.8)
    rates = [learning_rate(step, 4, config) for step in range(17)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[10] == pytest.approx(0.4)
    assert rates[16] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in pairwise(rates[4:]))


def test_no_warm_up_starts_at_the_highest_rate() -> None:
    assert learning_rate(0, 10, TrainConfig(epochs=2, warmup_epochs=0, lr=0.3)) == pytest.approx(0.3)


def test_only_kernels_are_decayed() -> None:
    network = build(small_model())
    decayed, kept = make_optimizer(network, CONFIG).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (CONFIG.weight_decay, 0.0)
    assert decayed["nesterov"]
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert {names[id(p)].rpartition(".")[2] for p in kept["params"]} == {"weight", "bias", "taps"}
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_derived_generators_are_independent_and_repeat() -> None:
    def draw(*key: int) -> float:
        return float(torch.rand(1, generator=derived_generator(*key)))

    assert draw(0, 1, 2) == draw(0, 1, 2)
    assert len({draw(0, 1, 2), draw(1, 1, 2), draw(0, 0, 2), draw(0, 1, 3)}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be more than 0, it is 0"),
        ({"lr": -1.0}, "lr must be more than 0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "must be fewer than epochs"),
    ],
)
def test_options_that_no_run_can_use_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BlvnetError, match=message):
        TrainConfig(**options)


def test_options_of_another_version_are_refused_by_name() -> None:
    with pytest.raises(BlvnetError, match="unknown training options: colour"):
        train_config_from_dict(CONFIG.to_dict() | {"colour": 1})


def test_first_signal_asks_to_stop_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in folders: dark and bright clips, four of each to train on and two to validate on."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("val", 2)):
        for level, label in zip((60, 200), LABELS, strict=True):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = np.full((32, 32, 3), level + 5 * index, np.uint8)
                (folder / f"{index}.mp4").write_bytes(encode([image] * 4, ClipRecipe(width=32, height=32)))
    return root


def command(data: Path, run: Path, *options: str) -> list[str]:
    chosen = ["--dataset", "folder", "--data", str(data), "--arch", "blvnet-tam-mini", "--frames", "4"]
    chosen += ["--size", "32", "--out", str(run), "--epochs", "2", "--batch-size", "4", "--log-every", "1"]
    return [str(BLVNET), "train", *chosen, "--workers", "1", *options]


def blvnet(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def test_command_stops_on_sigterm_and_refuses_to_start_over(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = command(data, run, "--epochs", "500")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 3" in line:
                process.terminate()
                break
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "the same command with --resume goes on from there" in rest
    assert 3 <= saved(run)["step"] < 1000
    again = blvnet(arguments)
    assert again.returncode == 1
    assert "holds a run already: add --resume, or choose another --out" in again.stderr


def test_command_trains_from_files_without_a_cache(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = blvnet(command(data, run, "--no-cached", "--no-augmentation", "--workers", "0"))
    assert done.returncode == 0, done.stderr
    assert "done: 4 steps" in done.stderr
    assert not (run / "cache").exists()
    start = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert (start["kind"], start["train_clips"], start["validation_clips"]) == ("start", 8, 4)


def test_command_starts_from_a_checkpoint_and_resume_needs_one(data: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path / "first")
    first.run(threading.Event())
    nothing = blvnet(command(data, tmp_path / "second", "--resume"))
    assert nothing.returncode == 1
    assert "holds no last.pt to resume from" in nothing.stderr
    done = blvnet(
        command(data, tmp_path / "second", "--init", str(tmp_path / "first/best.pt"), "--lr", "1e-12")
    )
    assert done.returncode == 0, done.stderr
    kernels = {
        name: module.weight
        for name, module in build(small_model()).named_modules()
        if isinstance(module, nn.Conv2d)
    }
    for name in kernels:
        start = saved(tmp_path / "first", "best.pt")["weights"][f"{name}.weight"]
        end = saved(tmp_path / "second", "last.pt")["weights"][f"{name}.weight"]
        torch.testing.assert_close(start, end, atol=1e-6, rtol=0)

"""Options of a run that change what is kept and reported: averages, TensorBoard, plateaus."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_export.checkpoints.checkpoint import load_network
from model_export.checkpoints.initialise import initialise_from
from model_export.networks.registry import build
from model_export.progress import ProgressReporter
from model_export.training.config import Augmentation, Schedule, TrainConfig
from model_export.training.run_log import RunLog, RunReport, read_log
from service.cli import _failure
from tests.model_export.training.test_trainer import CONFIG, run_all, saved, trainer


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**vars(CONFIG), "augmentation": Augmentation.none(), **changes})


def test_last_weights_come_with_the_average_of_weights_and_statistics(tmp_path: Path) -> None:
    decay = 0.5
    run = trainer(tmp_path, config(epochs=6, ema=decay, warmup_epochs=0))
    taken: list[dict[str, torch.Tensor]] = []
    run.train_step.optimizer.register_step_post_hook(
        lambda *_: taken.append({name: value.clone() for name, value in run.network.state_dict().items()})
    )
    run.run(threading.Event())
    last = saved(tmp_path, "last.pt")
    for name, expected in taken[0].items():
        for count, state in enumerate(taken[1:], start=1):
            value = state[name]
            kept = min(decay, (1 + count) / (10 + count))  # the decay rises to that of the option
            expected = kept * expected + (1 - kept) * value if value.is_floating_point() else value
        torch.testing.assert_close(last["average"][f"module.{name}"], expected)
        assert torch.equal(last["weights"][name], taken[-1][name])
    assert len(taken) == 12
    assert kept == decay


def test_best_weights_are_those_of_the_average(tmp_path: Path) -> None:
    run_all(tmp_path, config(epochs=1, ema=0.5, warmup_epochs=0))
    best, last = saved(tmp_path, "best.pt"), saved(tmp_path, "last.pt")
    assert "average" not in best
    for name, value in best["weights"].items():
        assert torch.equal(value, last["average"][f"module.{name}"])
    # The only epoch is the best one, and what is taken from either file is what was validated.
    for file in ("best.pt", "last.pt"):
        network, model, _ = load_network(tmp_path / file)
        fresh = build(model)
        initialise_from(fresh, model, tmp_path / file, best["labels"])
        for name, value in best["weights"].items():
            assert torch.equal(network.state_dict()[name], value)
            assert torch.equal(fresh.state_dict()[name], value)


def test_average_scores_as_well_as_the_last_weights_although_it_is_of_few_steps(tmp_path: Path) -> None:
    run = trainer(tmp_path, config(epochs=10, ema=0.99, warmup_epochs=1, schedule=Schedule.STEP, lr=0.1))
    run.run(threading.Event())
    loss, top1 = run.validation.measure(run.network, 0, lambda _: None)
    averaged_loss, averaged_top1 = run.validation.measure(run.train_step.averaged, 0, lambda _: None)
    assert averaged_top1 == top1 == 1.0
    assert max(loss, averaged_loss) < 0.1


def test_numbers_of_the_log_are_in_tensorboard_too(tmp_path: Path) -> None:
    run_all(tmp_path / "run", config(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = read_log(tmp_path / "run")
    for kind, name in (
        ("step", "loss"),
        ("step", "lr"),
        ("epoch", "validation_top1"),
        ("epoch", "waiting_s"),
    ):
        logged = [(line["step"], pytest.approx(line[name])) for line in lines if line["kind"] == kind]
        assert [(item.step, item.value) for item in events.Scalars(f"{kind}/{name}")] == logged


def test_steps_that_a_resumed_run_repeats_are_once_in_tensorboard(tmp_path: Path) -> None:
    options = config(tensorboard=True, log_every=1)
    for resume_at, steps in ((None, (1, 2, 3)), (1, (2, 3, 4))):
        with ProgressReporter(Console(quiet=True)) as reporter:
            report = RunReport(RunLog(tmp_path, resume_at), reporter, options, 4)
            with report.epoch(1, resume_at or 0):
                for step in steps:
                    report.step(step, loss=step / 2 + (resume_at or 0), lr=0.1, clips=1, waited_s=0.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [(item.step, item.value) for item in events.Scalars("step/loss")]
    assert written == [(line["step"], line["loss"]) for line in read_log(tmp_path)]
    assert written == [(1, 0.5), (2, 2.0), (3, 2.5), (4, 3.0)]


def test_learning_rate_is_logged_with_six_digits_however_small_it_is(tmp_path: Path) -> None:
    with ProgressReporter(Console(quiet=True)) as reporter:
        report = RunReport(RunLog(tmp_path, None), reporter, config(log_every=1), 2)
        with report.epoch(1, 0):
            report.step(1, loss=1.0, lr=3.14159265e-7, clips=1, waited_s=0.0)
            report.step(2, loss=1.0, lr=0.0123456789, clips=1, waited_s=0.0)
    assert [line["lr"] for line in read_log(tmp_path)] == [3.14159e-7, 0.0123457]


def test_missing_tensorboard_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        run_all(tmp_path / "run", config(tensorboard=True))
    message = _failure(raised.value).message
    assert message.startswith("tensorboard is not installed; run: ")
    assert "[tensorboard]" in message


def test_plateau_lowers_the_rate_and_its_state_is_saved(tmp_path: Path) -> None:
    """At this rate no epoch lowers the loss by a ten-thousandth."""
    options = config(epochs=4, warmup_epochs=0, lr=1e-4, schedule=Schedule.PLATEAU, patience=1, batch_size=8)
    run = trainer(tmp_path, options)
    run.state.plateau.best_loss = 1e-6
    run.run(threading.Event())
    rates = [line["lr"] for line in read_log(tmp_path) if line["kind"] == "step"]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5], abs=1e-6)
    assert saved(tmp_path)["plateau"] == {"factor": pytest.approx(0.01), "best_loss": 1e-6, "waited": 0}

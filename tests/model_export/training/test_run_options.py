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


def test_best_weights_are_the_average_and_last_ones_have_both(tmp_path: Path) -> None:
    decay = 0.5
    run = trainer(tmp_path, config(epochs=1, ema=decay, warmup_epochs=0))
    parameter = next(run.network.parameters())
    taken: list[torch.Tensor] = []
    run.train_step.optimizer.register_step_post_hook(lambda *_: taken.append(parameter.detach().clone()))
    run.run(threading.Event())
    expected = taken[0]
    for value in taken[1:]:
        expected = decay * expected + (1 - decay) * value
    name = next(name for name, _ in run.network.named_parameters())
    best, last = saved(tmp_path, "best.pt"), saved(tmp_path, "last.pt")
    torch.testing.assert_close(best["weights"][name], expected)
    assert torch.equal(last["weights"][name], taken[-1])
    assert "average" in last
    assert "average" not in best
    # The only epoch is the best one, and what is taken from either file is what was validated.
    for file in ("best.pt", "last.pt"):
        network, model, _ = load_network(tmp_path / file)
        torch.testing.assert_close(network.state_dict()[name], expected)
        fresh = build(model)
        initialise_from(fresh, model, tmp_path / file)
        torch.testing.assert_close(fresh.state_dict()[name], expected)


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

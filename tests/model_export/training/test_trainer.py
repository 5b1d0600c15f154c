"""Training runs: exact resume, clean stops, learning rate, and errors."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from model_export.checkpoints.checkpoint import read_checkpoint
from model_export.datasets import Example, Listing, Symmetry, read_listing
from model_export.networks.config import ModelConfig
from model_export.networks.registry import build, parse_architecture
from model_export.progress import ProgressReporter
from model_export.training.clips.batches import BatchLoader, DecodedClips, Draw, SplitData
from model_export.training.clips.frame_cache import Pixels
from model_export.training.config import Amp, Augmentation, OptimizerName, TrainConfig
from model_export.training.run_log import RunLog, plot_curves, read_log
from model_export.training.step import derived_generator, native_arithmetic
from model_export.training.trainer import RunResult, Trainer, stopping_on_signals
from service.errors import BlvnetError
from tests.model_export.command import blvnet
from tests.support.clips import ClipRecipe, encode

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
    """Networks this small are slower with a second thread on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class MadeClips:
    """Noise around 60 for examples with even indices and around 200 for odd ones, without files."""

    phases = 1
    together = 1
    crops = 1

    def __len__(self) -> int:
        return COUNT

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        rng = np.random.default_rng(draw.index)
        level = (60, 200)[draw.index % 2]
        shapes = [(FRAMES, side, side, 3) for side in (SIZE, SIZE // 2)]
        return tuple((level + rng.integers(-40, 40, shape)).astype(np.uint8) for shape in shapes)


class StopAfter(threading.Event):
    """A stop event that is set after `questions` calls of `is_set`."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def listing(labels: tuple[str, ...] = LABELS) -> Listing:
    clips = tuple(Example(Path(f"{index}.mp4"), index % 2) for index in range(COUNT))
    nothing = (None,) * len(labels)
    return Listing(labels, clips, Symmetry(nothing, nothing))


def trainer(
    run: Path, config: TrainConfig = CONFIG, data: SplitData | None = None, dropout: float = 0.2
) -> Trainer:
    """A trainer with a new network, whose weights are the same each time."""
    run.mkdir(exist_ok=True)
    data = data or SplitData(listing(), MadeClips())
    torch.manual_seed(0)
    model = small_model(dropout)
    network = build(model)
    console = Console(file=io.StringIO(), force_terminal=False)
    reporter = ProgressReporter(console)
    return Trainer(network, model, data, data, config, run, origin={"dataset": "made"}, reporter=reporter)


def small_model(dropout: float = 0.2) -> ModelConfig:
    return parse_architecture(
        "blvnet-tam-mini", num_classes=len(LABELS), frames=FRAMES, size=SIZE, dropout=dropout
    )


def run_all(run: Path, config: TrainConfig = CONFIG) -> RunResult:
    return trainer(run, config).run(threading.Event())


def saved(run: Path, name: str = "last.pt") -> dict[str, Any]:
    checkpoint = read_checkpoint(run / name)
    return {"weights": checkpoint.weights, **checkpoint.training}


def assert_same(first: object, second: object) -> None:
    """Assert that two nested values are equal bit for bit."""
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
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, amp: Amp) -> None:
    config = TrainConfig(**{**vars(CONFIG), "amp": amp})
    whole = tmp_path / "whole"
    assert run_all(whole, config).finished
    for questions, step in ((1, 1), (4, 3)):
        parts = tmp_path / f"stopped after step {step}"
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


def test_adamw_learns_and_resumes_like_sgd(tmp_path: Path) -> None:
    changes = {"optimizer": OptimizerName.ADAMW, "lr": 0.003}
    config = TrainConfig(**{**vars(CONFIG), **changes})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_all(whole, config).finished
    assert not trainer(parts, config).run(StopAfter(1)).finished
    assert trainer(parts, config).run(threading.Event(), resume=True).finished
    assert_same(saved(whole)["weights"], saved(parts)["weights"])
    assert losses(whole) == losses(parts)
    with pytest.raises(BlvnetError, match="another options"):
        trainer(parts).run(threading.Event(), resume=True)


def test_run_of_a_version_without_an_option_resumes_with_its_default() -> None:
    options = CONFIG.to_dict()
    del options["accumulate"], options["optimizer"]
    assert CONFIG.continues(options)
    assert not TrainConfig(**{**vars(CONFIG), "accumulate": 2}).continues(options)


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


def test_truncated_last_line_of_the_log_is_ignored(tmp_path: Path) -> None:
    RunLog(tmp_path, None).add("step", 1, loss=1.0)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert len(read_log(tmp_path)) == 1


def test_training_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(CONFIG), "epochs": 8, "augmentation": Augmentation.none()})
    outcome = run_all(tmp_path / "run", config)
    assert outcome == RunResult(True, 16, 1.0, outcome.elapsed_s)
    epochs = [line for line in read_log(tmp_path / "run") if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 9))
    assert max(line["validation_top1"] for line in epochs) == 1.0
    assert saved(tmp_path / "run", "best.pt")["best_top1"] == 1.0


def test_checkpoint_describes_the_training(tmp_path: Path) -> None:
    run_all(tmp_path)
    training = saved(tmp_path, "best.pt")
    assert training["labels"] == list(LABELS)
    assert training["dataset"] == "made"
    arithmetic = native_arithmetic(torch.device("cpu"))
    assert training["options"] == {**CONFIG.to_dict(), "amp": arithmetic}
    assert training["clip"]["inputs"][1] == {"name": "big", "frames": "odd", "size": 16, "scale": 16}
    assert read_checkpoint(tmp_path / "best.pt").config == small_model()
    assert "optimizer" not in training


def test_curves_are_drawn_from_the_log(tmp_path: Path) -> None:
    run_all(tmp_path)
    (tmp_path / "curves.png").unlink()
    assert plot_curves(tmp_path).read_bytes().startswith(b"\x89PNG")


class Watch(threading.Event):
    """A stop event that is never set and records the step of `last.pt` at each call of `is_set`."""

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
    data = SplitData(listing(("bright", "dark")), MadeClips())
    with pytest.raises(BlvnetError, match="another labels"):
        trainer(tmp_path, data=data).run(threading.Event(), resume=True)
    with pytest.raises(BlvnetError, match="another network"):
        trainer(tmp_path, dropout=0.0).run(threading.Event(), resume=True)


def test_resume_with_other_training_clips_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.origin["hold_out"] = "anna"
    made.run(StopAfter(1))
    with pytest.raises(BlvnetError, match="another held-out group"):
        trainer(tmp_path).run(threading.Event(), resume=True)
    fewer = replace(listing(), examples=listing().examples[: COUNT // 2])
    again = trainer(tmp_path, data=SplitData(fewer, MadeClips()))
    again.origin["hold_out"] = "anna"
    with pytest.raises(BlvnetError, match="another number of steps per epoch"):
        again.run(threading.Event(), resume=True)


def test_resume_with_other_mirror_images_or_source_of_clips_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.origin["cached"] = True
    made.run(StopAfter(1))
    again = trainer(tmp_path)
    again.origin["cached"] = False
    with pytest.raises(BlvnetError, match="another source of clips"):
        again.run(threading.Event(), resume=True)
    mirrored = replace(listing(), symmetry=Symmetry((0, 1), (None, None)))
    with pytest.raises(BlvnetError, match="another mirror image of a label"):
        trainer(tmp_path, data=SplitData(mirrored, MadeClips())).run(threading.Event(), resume=True)


def test_resume_may_change_logging_and_speed_options(tmp_path: Path) -> None:
    trainer(tmp_path).run(StopAfter(1))
    shown_otherwise = TrainConfig(**{**vars(CONFIG), "log_every": 2, "save_every_s": 60.0})
    assert trainer(tmp_path, shown_otherwise).run(threading.Event(), resume=True).finished


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    broken = trainer(tmp_path)
    with torch.no_grad():
        for parameter in broken.network.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(BlvnetError, match="training diverged: at step 1 the loss is nan"):
        broken.run(threading.Event())


class OneUnreadable(MadeClips):
    """The third clip cannot be read."""

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        if draw.index == 2:
            raise BlvnetError("broken")
        return super().load(draw, example)


def test_unreadable_clips_are_logged_once_by_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, data=SplitData(listing(), OneUnreadable()))
    outcome = run.run(threading.Event())
    named = [line for line in read_log(tmp_path) if line["kind"] == "unreadable"]
    assert outcome.finished
    assert [(line["path"], line["reason"]) for line in named] == [("2.mp4", "BlvnetError: broken")]
    assert isinstance(run.reporter.console.file, io.StringIO)
    assert run.reporter.console.file.getvalue().count("unreadable: 2.mp4") == 1


def test_derived_generators_are_independent_and_repeat() -> None:
    def draw(*key: int) -> float:
        return float(torch.rand(1, generator=derived_generator(*key)))

    assert draw(0, 1, 2) == draw(0, 1, 2)
    assert len({draw(0, 1, 2), draw(1, 1, 2), draw(0, 0, 2), draw(0, 1, 3)}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, it is 0"),
        ({"lr": -1.0}, "lr must be more than 0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "must be fewer than epochs"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BlvnetError, match=message):
        TrainConfig(**options)


def test_first_signal_requests_a_stop_and_the_second_acts_as_usual() -> None:
    # Shells start background commands with SIGINT ignored, so set the usual handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stopping_on_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in folders: four training and two validation videos each of dark and bright."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("val", 2)):
        for level, label in zip((60, 200), LABELS, strict=True):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = np.full((32, 32, 3), level + 5 * index, np.uint8)
                (folder / f"{index}.mp4").write_bytes(encode([image] * 4, ClipRecipe(width=32, height=32)))
    return root


def training(data: Path, run: Path, *options: str) -> list[str]:
    """The arguments of `blvnet` for a short training."""
    chosen = ["--dataset", "folder", "--data", str(data), "--arch", "blvnet-tam-mini", "--frames", "4"]
    chosen += ["--size", "32", "--out", str(run), "--epochs", "2", "--batch-size", "4", "--log-every", "1"]
    return ["train", *chosen, "--workers", "0", *options]


def test_command_stops_on_sigterm_and_does_not_overwrite_the_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = training(data, run, "--epochs", "500", "--workers", "1")
    with subprocess.Popen(
        [BLVNET, *arguments], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 3" in line:
                process.terminate()
                break
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "the same command with --resume continues" in rest
    assert 3 <= saved(run)["step"] < 1000
    again = blvnet(*arguments)
    assert again.status == 1
    assert "contains a run already: add --resume, or choose another --out" in again.stderr


def test_command_trains_from_files_without_a_cache(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = blvnet(*training(data, run, "--no-cached", "--no-augmentation", "--workers", "0"))
    assert done.status == 0, done.stderr
    assert "done: 4 steps" in done.stderr
    assert not (run / "cache").exists()
    start = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert (start["kind"], start["train_clips"], start["validation_clips"]) == ("start", 8, 4)


def test_command_starts_from_a_checkpoint_and_resume_needs_one(data: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path / "first")
    first.run(threading.Event())
    nothing = blvnet(*training(data, tmp_path / "second", "--resume"))
    assert nothing.status == 1
    assert "has no last.pt to resume from" in nothing.stderr
    done = blvnet(
        *training(data, tmp_path / "second", "--init", str(tmp_path / "first/best.pt"), "--lr", "1e-12")
    )
    assert done.status == 0, done.stderr
    kernels = {
        name: module.weight
        for name, module in build(small_model()).named_modules()
        if isinstance(module, nn.Conv2d)
    }
    for name in kernels:
        start = saved(tmp_path / "first", "best.pt")["weights"][f"{name}.weight"]
        end = saved(tmp_path / "second", "last.pt")["weights"][f"{name}.weight"]
        torch.testing.assert_close(start, end, atol=1e-6, rtol=0)


def test_set_that_is_smaller_than_a_batch_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        BlvnetError, match=r"8 training examples are fewer .* of 9: use --batch-size 8 or less"
    ):
        trainer(tmp_path, TrainConfig(**{**vars(CONFIG), "batch_size": 9}))


class NoneReadable(MadeClips):
    """No clip can be read."""

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        raise BlvnetError("broken")


def test_training_without_a_readable_example_fails(tmp_path: Path) -> None:
    run = trainer(tmp_path, data=SplitData(listing(), NoneReadable()))
    with pytest.raises(BlvnetError, match=r"no example of the training split can be read; the first: \d.mp4"):
        run.run(threading.Event())
    assert not (tmp_path / "best.pt").exists()


def test_command_fails_where_no_training_video_can_be_read(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    for path in broken.glob("train/*/*.mp4"):
        path.write_text("no video")
    done = blvnet(*training(broken, tmp_path / "run", "--no-cached"))
    assert done.status == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("blvnet: no example of the training split can be read; the first: ")
    assert not (tmp_path / "run/best.pt").exists()


def test_weights_of_a_diverged_run_are_never_saved(tmp_path: Path) -> None:
    """The loss of the epoch's last step is finite, but its update is not."""
    config = TrainConfig(**{**vars(CONFIG), "epochs": 1, "warmup_epochs": 0, "batch_size": 8, "lr": 1e38})
    with pytest.raises(
        BlvnetError, match=r"training diverged: the validation loss after step 1 is (nan|inf)"
    ):
        run_all(tmp_path, config)
    assert not (tmp_path / "best.pt").exists()


def test_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    next(run.network.parameters()).register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: gradient * math.inf
    )
    with pytest.raises(
        BlvnetError, match=r"training diverged: at step 1 the loss is \d.* norm (nan|inf); try"
    ):
        run.run(threading.Event())
    for name, value in run.network.named_parameters():
        assert torch.equal(value, before[name])


def test_full_disk_ends_the_run_with_one_line_and_leaves_the_last_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = blvnet(*training(data, run, "--epochs", "1"))
    assert started.status == 0, started.stderr
    before = (run / "last.pt").read_bytes()
    # The limit on the size of a file fails a write in the middle, as a full disk does.
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, -1)); "
    script += "from service.cli import main; main()"
    resumed = [sys.executable, "-c", script, *training(data, run, "--epochs", "1", "--resume")]
    done = subprocess.run(resumed, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"blvnet: {run / 'last.pt'} cannot be written (File too large)"
    assert "Traceback" not in done.stderr
    assert (run / "last.pt").read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_one_epoch_has_a_shorter_warm_up_by_default(data: Path, tmp_path: Path) -> None:
    done = blvnet(*training(data, tmp_path / "run", "--epochs", "1"))
    assert done.status == 0, done.stderr
    assert saved(tmp_path / "run")["options"]["warmup_epochs"] == 0.1


def test_label_without_validation_clips_is_named_in_a_warning(data: Path, tmp_path: Path) -> None:
    part = tmp_path / "data"
    shutil.copytree(data, part)
    shutil.rmtree(part / "val" / LABELS[1])
    done = blvnet(*training(part, tmp_path / "run"))
    assert done.status == 0, done.stderr
    assert "warning: the val split has no clip of 'bright'\n" in done.stderr


def test_set_that_is_smaller_than_a_batch_names_the_option(data: Path, tmp_path: Path) -> None:
    done = blvnet(*training(data, tmp_path / "run", "--batch-size", "9"))
    assert done.status == 1
    assert done.stderr.splitlines()[-1].endswith("use --batch-size 8 or less")


@pytest.mark.parametrize("readable", [MadeClips, OneUnreadable])
def test_accumulated_parts_add_up_to_the_batch(tmp_path: Path, readable: type[MadeClips]) -> None:
    """Parts have their own batch statistics, so they are equal only in evaluation mode."""
    losses: dict[int, float | None] = {}
    gradients: dict[int, torch.Tensor] = {}
    for parts in (1, 3):
        config = {"accumulate": parts, "amp": Amp.OFF, "augmentation": Augmentation.none(), "clip_norm": 1e9}
        run = trainer(tmp_path, TrainConfig(**{**vars(CONFIG), **config}), SplitData(listing(), readable()))
        run.network.eval()
        (batch,) = run.train_loader.load([[Draw(index) for index in range(4)]])
        losses[parts] = run.train_step(batch, 0, 0.1)
        gradients[parts] = torch.cat(
            [p.grad.flatten() for p in run.network.parameters() if p.grad is not None]
        )
    assert losses[1] == pytest.approx(losses[3], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[3], atol=1e-5, rtol=1e-3)


def test_log_says_how_long_training_waits_for_data(tmp_path: Path) -> None:
    class SlowClips(MadeClips):
        def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
            time.sleep(0.05)
            return super().load(draw, example)

    run = trainer(tmp_path, data=SplitData(listing(), SlowClips()))
    run.run(threading.Event())
    log = read_log(tmp_path)
    assert all(0 < line["waiting"] <= 1 for line in log if line["kind"] == "step")
    epochs = [line for line in log if line["kind"] == "epoch"]
    assert len(epochs) == CONFIG.epochs
    # Rounded to a tenth of a second.
    assert all(line["waiting_s"] >= 0.05 * COUNT - 0.05 for line in epochs)
    assert isinstance(run.reporter.console.file, io.StringIO)
    assert "% of the time waiting for data" in run.reporter.console.file.getvalue()


def test_batches_of_a_split_come_from_the_same_worker_processes(data: Path) -> None:
    split = read_listing("folder", data, "train")
    source = WorkerIds(len(split.examples), small_model().clip_spec(), phases=1, crops=1)
    loader = BatchLoader(SplitData(split, source), workers=1)
    draws = [[Draw(0)], [Draw(1)]]
    seen = {int(batch.frames[0][0]) for _ in range(2) for batch in loader.load(draws)}
    assert len(seen) == 1
    assert seen != {os.getpid()}


class WorkerIds(DecodedClips):
    """The process that loads a clip, in place of its frames."""

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        return (np.array(os.getpid()),)

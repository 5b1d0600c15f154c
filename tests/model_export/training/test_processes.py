"""Several processes, and processes that are killed: `blvnet train` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.checkpoints.checkpoint import read_checkpoint
from model_export.training.run_log import read_log
from tests.support.clips import ClipRecipe, encode

BLVNET = Path(sys.executable).with_name("blvnet")
TORCHRUN = (
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "--no-python",
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
EVERYTHING_RANDOM = ("--no-cached", "--offsets", "segment", "--crop", "multi-scale", "--rand-augment", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and four validation videos of two labels; one training video more cannot be read."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for level, label in ((60, "dark"), (200, "bright")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                images = [
                    np.full((40, 48, 3), level, np.uint8) + rng.integers(0, 40, (40, 48, 1), np.uint8)
                ] * 6
                (folder / f"{index}.mp4").write_bytes(encode(images, ClipRecipe(width=48, height=40)))
    return root


def arguments(data: Path, run: Path, *options: str) -> list[str]:
    chosen = ["--dataset", "folder", "--data", str(data), "--arch", "blvnet-tam-mini", "--frames", "4"]
    chosen += ["--size", "32", "--out", str(run), "--epochs", "2", "--log-every", "1", "--workers", "2"]
    return ["train", *chosen, *options]


def run_blvnet(*command: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(BLVNET), *options], capture_output=True, text=True, timeout=900, env=ENVIRONMENT
    )


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_log(run) if line["kind"] == "step"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "last.pt").weights


def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(data: Path, tmp_path: Path) -> None:
    exact = ["--amp", "off", "--dropout", "0", "--noise", "0", "--lr", "0.001", "--no-cached", "--ema", "0.5"]
    exact += ["--workers", "0"]  # to start them takes longer than the training
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run_blvnet(options=arguments(data, one, *exact, "--batch-size", "4", "--batch-norm", "batch"))
    assert alone.returncode == 0, alone.stderr
    together = run_blvnet(
        *TORCHRUN,
        options=arguments(
            data, two, *exact, "--batch-size", "2", "--batch-norm", "sync", "--accumulate", "1"
        ),
    )
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("done: 4 steps") == 1
    assert losses(two) == pytest.approx(losses(one), abs=3e-4)  # logged with four digits
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, atol=2e-5, rtol=1e-4)
    first, second = ([line for line in read_log(run) if line["kind"] == "epoch"] for run in (one, two))
    for line, other in zip(first, second, strict=True):
        assert other["validation_loss"] == pytest.approx(line["validation_loss"], abs=3e-4)
        assert other["waiting_s"] <= other["training_s"]
    start = read_log(two)[0]
    assert start["processes"] == 2
    other_count = run_blvnet(
        options=[*arguments(data, two, *exact, "--batch-size", "2"), "--batch-norm", "sync", "--resume"]
    )
    assert other_count.returncode == 1
    assert "was written by a run with another number of processes; give the same again" in other_count.stderr


def test_killed_run_resumes_bit_for_bit_with_two_workers(data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--batch-size", "2", "--save-every-s", "1e-6", *EVERYTHING_RANDOM)
    done = run_blvnet(options=arguments(data, whole, *options))
    assert done.returncode == 0, done.stderr
    command = [str(BLVNET), *arguments(data, killed, *options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 3" in line:
                process.kill()
                break
        process.stderr.read()
    step = read_checkpoint(killed / "last.pt").training["step"]
    assert 2 <= step < 8
    assert step % 4 != 0 or step == 4
    resumed = run_blvnet(options=arguments(data, killed, *options, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert losses(killed) == losses(whole)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(killed)[name]), name

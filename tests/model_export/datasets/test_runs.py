"""Training and evaluation from each published layout, with the commands of a user."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model_export.checkpoints.checkpoint import read_checkpoint
from model_export.datasets import ALIASES, READERS
from model_export.evaluation.scorers import CheckpointScorer
from service.clip.spec import Sampling
from tests.model_export.command import Result, blvnet
from tests.model_export.datasets import layouts

NETWORK = ("--arch", "blvnet-tam-mini", "--frames", "4", "--size", "32")
ONE_EPOCH = (
    "--epochs",
    "1",
    "--warmup-epochs",
    "0",
    "--batch-size",
    "2",
    "--workers",
    "1",
    "--log-every",
    "1",
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are not faster with a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(dataset: str, data: Path, run: Path, *options: str) -> Result:
    return blvnet("train", "--dataset", dataset, "--data", data, "--out", run, *NETWORK, *ONE_EPOCH, *options)


def evaluate(dataset: str, data: Path, run: Path, *options: str) -> Result:
    where = ("--dataset", dataset, "--data", data, "--checkpoint", run / "last.pt")
    return blvnet("evaluate", *where, "--json", *options)


@pytest.mark.parametrize(
    ("dataset", "make", "options", "clips"),
    [
        ("ssv1", layouts.something_v1, ("--cached",), (8, 4)),
        ("ssv2", layouts.something_v2, ("--no-cached", "--workers", "0"), (8, 4)),
        ("k400", layouts.kinetics, ("--no-cached", "--workers", "0"), (6, 3)),
        ("mit", layouts.moments, ("--no-cached", "--workers", "0"), (6, 3)),
        ("list", layouts.lists, ("--no-cached", "--workers", "0"), (4, 2)),
    ],
)
def test_data_set_is_trained_on_and_evaluated_on_its_validation_split(
    tmp_path: Path,
    dataset: str,
    make: Callable[[Path], Path],
    options: tuple[str, ...],
    clips: tuple[int, int],
) -> None:
    data, run = make(tmp_path / "data"), tmp_path / "run"
    done = train(dataset, data, run, *options)
    assert done.status == 0, done.stderr
    assert f"done: {clips[0] // 2} steps" in done.stderr
    judged = evaluate(dataset, data, run, "--clips", "2", "--crops", "3")
    assert judged.status == 0, judged.stderr
    figures = json.loads(judged.stdout)
    assert (figures["clips"], figures["unreadable"]) == (clips[1], [])
    assert (run / "confusion-val.png").exists()


def test_missing_videos_are_counted_and_unreadable_ones_are_named(tmp_path: Path) -> None:
    data = layouts.something_v1(tmp_path / "data")
    frames = data / "20bn-something-something-v1"
    (frames / "101").rename(tmp_path / "gone")
    for picture in (frames / "102").iterdir():
        picture.write_bytes(b"")
    done = train("ssv1", data, tmp_path / "run", "--no-cached", "--workers", "0")
    assert done.status == 0, done.stderr
    assert "1 of 8 train clips are missing\n" in done.stderr
    assert "val clips are missing" not in done.stderr
    said = done.stderr.replace("\n", "")
    assert re.search(rf"unreadable: {frames}/102 \(Undecodable: 0000\d\.jpg is not a JPEG picture", said)


def test_dense_sampling_is_kept_for_evaluation_and_resume(tmp_path: Path) -> None:
    data, run = layouts.kinetics(tmp_path / "data"), tmp_path / "run"
    options = ("--sampling", "dense", "--stride", "2", "--scale", "36", "--no-cached", "--workers", "0")
    done = train("kinetics-400", data, run, *options)
    assert done.status == 0, done.stderr
    clip = read_checkpoint(run / "last.pt").training["clip"]
    assert (clip["sampling"], clip["stride"]) == ("dense", 2)
    assert [item["scale"] for item in clip["inputs"]] == [36, 18]
    spec = CheckpointScorer(run / "last.pt").clip
    assert (spec.sampling, spec.stride, spec.inputs[0].scale) == (Sampling.DENSE, 2, 36)
    judged = evaluate("kinetics-400", data, run, "--clips", "10", "--crops", "3")
    assert json.loads(judged.stdout)["clips"] == 3
    other = train("kinetics-400", data, run, "--no-cached", "--workers", "0", "--resume")
    assert other.status == 1
    assert "was written by a run with another clip" in other.stderr


def test_impossible_clip_options_are_refused(tmp_path: Path) -> None:
    data = layouts.kinetics(tmp_path / "data")
    for options, message in (
        (("--stride", "2"), "needs --sampling dense"),
        (("--scale", "20"), "must be at least the size, 32"),
    ):
        done = train("k400", data, tmp_path / "run", *options)
        assert done.status == 2
        assert message in done.stderr


def test_help_names_the_data_sets() -> None:
    # The help names the first of the numbered splits.
    names = {re.sub(r"^(ucf101|hmdb51)-\d$", r"\1", name) for name in {*READERS, *ALIASES}}
    for command, known in (("train", names), ("evaluate", names)):
        words = blvnet(command, "--help").stdout.replace("(", " ").replace(")", " ").replace(",", " ").split()
        assert known <= {word.rstrip(".") for word in words}

"""Fine-tuning from a package: statistics, frozen stages, a group that is held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_export.checkpoints.checkpoint import load_network, read_checkpoint
from model_export.datasets import Example, Listing, Symmetry
from model_export.networks.registry import build, parse_architecture
from model_export.training.clips.batches import CachedClips, SplitData
from model_export.training.clips.frame_cache import FrameCache
from model_export.training.config import BatchNorm, Freeze, TrainConfig
from model_export.training.initial_statistics import measure_initial_statistics
from model_export.training.preparation import frozen_stages, prepare, train_mode
from model_export.training.processes import Processes
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.packages.folders import bundled_models
from tests.model_export.command import blvnet
from tests.support.clips import ClipRecipe, encode

BUNDLED = bundled_models() / "blvnet-tam-mini"
PEOPLE = ("anna", "ben")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each of two people, of two labels."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for number, (label, person) in enumerate((label, person) for label in "ab" for person in PEOPLE):
        scene = np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        images = [np.roll(scene.repeat(2, 0).repeat(2, 1), 2 * step, 1) for step in range(8)]
        for split in ("train", "val"):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            path = root / split / label / f"{person}.mp4"
            path.write_bytes(encode(images, ClipRecipe(width=64, height=64)))
            rows.append(f"{split}/{label}/{person}.mp4,{person}")
    (root / "groups.csv").write_text("\n".join(rows))
    return root


def train(data: Path, out: Path, *options: object) -> str:
    where = ("--dataset", "folder", "--data", data, "--out", out, "--arch", "blvnet-tam-mini")
    short = ("--epochs", 1, "--batch-size", 2, "--workers", 0, "--no-cached", "--amp", "off")
    done = blvnet("train", *where, *short, *options)
    assert done.status == 0, done.stderr
    return done.stderr


def test_run_from_a_package_keeps_frozen_stages_and_validates_on_the_group(
    data: Path, tmp_path: Path
) -> None:
    output = train(data, tmp_path / "run", "--init", BUNDLED, "--freeze", "layer3", "--hold-out", "ben")
    assert f"initialised from {BUNDLED} (blvnet-tam-mini-f8x2): 330 tensors copied" in output
    assert "measuring the statistics of batch norm on training clips" in output
    trained, _, checkpoint = load_network(tmp_path / "run" / "last.pt")
    assert checkpoint.training["init"]["source"].startswith(str(BUNDLED))
    start = read_checkpoint(BUNDLED).weights
    torch.testing.assert_close(trained.get_parameter("layer3.tam.taps"), start["layer3.tam.taps"])
    torch.testing.assert_close(trained.get_parameter("stem.conv1.weight"), start["stem.conv1.weight"])
    assert not torch.equal(trained.get_parameter("layer4.0.conv1.weight"), start["layer4.0.conv1.weight"])
    # The statistics are those of the clips, no longer 0 and 1.
    assert trained.get_buffer("layer1.big.0.bn1.running_mean").abs().max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hold-out", "eve"), "no training video is in the group 'eve'; choose one of anna, ben"),
        (("--freeze", "layer2"), "--freeze layer2 keeps the weights of a trained network: add --init"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_remedy(
    data: Path, options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    where = ("--dataset", "folder", "--data", data, "--out", tmp_path / "run", "--arch", "blvnet-tam-mini")
    done = blvnet("train", *where, *options)
    assert done.status == 1
    assert done.stderr.strip().splitlines()[-1] == f"blvnet: {message}"


@pytest.mark.parametrize("arch", ["blvnet-tam-mini-f2x2", "tsn-mini-f2"])
def test_frozen_stages_stay_in_evaluation_without_gradients(arch: str) -> None:
    network = build(parse_architecture(arch, num_classes=2, size=32))
    config = TrainConfig(freeze=Freeze.LAYER2)
    prepare(network, config, Processes(device=torch.device("cpu")))
    train_mode(network, BatchNorm.BATCH, config.freeze)
    frozen = {id(p) for stage in frozen_stages(network, Freeze.LAYER2) for p in stage.parameters()}
    assert frozen
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad is (id(parameter) not in frozen)
        assert name.startswith(("layer3.", "layer4.", "fc.")) is parameter.requires_grad
    assert not network.get_submodule("layer2").training
    assert network.get_submodule("layer3").training
    assert frozen_stages(network, Freeze.NONE) == []


def test_initial_statistics_are_measured_on_at_most_512_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipSpec(1, (InputSpec("frames", Frames.ALL, 1, 1),))
    counts: list[int] = []

    def count(_network: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
        counts.append(sum(len(inputs[0]) for inputs in batches))

    monkeypatch.setattr("model_export.training.initial_statistics.measure_statistics", count)
    for examples in (1, 512, 513, 1023):
        pixels = np.zeros((examples, 1, 1, 1, 1, 3), np.uint8)
        listing = Listing(("a",), (Example(Path("x"), 0),) * examples, Symmetry((None,), (None,)))
        data = SplitData(
            listing, CachedClips(FrameCache((pixels,), tuple(range(examples)), ()), range(examples))
        )
        measure_initial_statistics(nn.Identity(), data, clip, torch.device("cpu"))
    assert counts == [1, 512, 257, 512]

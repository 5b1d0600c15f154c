"""The graph variants of a network compute its features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from model_export.export.rewrites.constant_tam import TimeFilter
from model_export.export.rewrites.fold import PixelConvolution
from model_export.export.rewrites.variants import GraphVariant, serving_network
from model_export.networks.normalise import MEAN, normalise
from model_export.networks.residual import VideoClassifier
from model_export.networks.temporal import TemporalAggregation, TemporalShift
from tests.model_export.export.networks_for_export import noise_clips, small_network


@dataclass(frozen=True)
class Example:
    """A network, two clips, and the features that it computes for them."""

    network: VideoClassifier
    clips: list[Tensor]
    features: Tensor


@lru_cache(maxsize=1)
def example(name: str, size: int) -> Example:
    """The same for all variants, which do not change the network."""
    network, config = small_network(name, size)
    clips = noise_clips(config.clip_spec(), 2)
    with torch.inference_mode():
        return Example(network, clips, network.features(*(normalise(frames) for frames in clips)))


@pytest.mark.parametrize("variant", GraphVariant)
@pytest.mark.parametrize("size", [32, 48, 73])
@pytest.mark.parametrize(
    "name",
    [
        "blvnet-tam-mini-f4x2",
        "blvnet-tam-mini-f1x2",
        "blvnet-tam-mini-f4x2-shared",
        "blvnet-tam-mini-f4x2-blend1-shared",
        "blvnet-tam-mini-f3x2-blend5-shared",
        "blvnet-tam-mini-f3x2-blend7",
        "blvnet-tam-mini-f2x2-blend9-shared",
        "blvnet-50-f2x2",
        "blvnet-mini-f2x2",
        "blvnet-tsm-mini-f2x2",
        "blvnet-tsm-mini-f3x2-shared",
        "tsn-mini-f2",
        "tsm-mini-f3",
        "tam-mini-f3",
        "i3d-mini-f2",
        "tam-resnet-18-f5",
        "tsm-resnet-18-f4",
        "tam-i3d-resnet-18-f4",
    ],
)
def test_variant_gives_the_same_features(name: str, size: int, variant: GraphVariant) -> None:
    made = example(name, size)
    with torch.inference_mode():
        features = serving_network(made.network, variant)(*made.clips)
    assert features.shape == made.features.shape
    spread = (made.features[0] - made.features[1]).abs().max()  # the difference between the clips
    assert (features - made.features).abs().max() < 1e-4 * spread


def test_variant_leaves_the_network_alone() -> None:
    network, _ = small_network("blvnet-tam-mini-f2x2")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    serving_network(network, GraphVariant.BLOCKED)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_variant_holds_no_temporal_module_of_training() -> None:
    for name in ("blvnet-tam-mini-f2x2-shared", "blvnet-tsm-mini-f2x2", "tsm-resnet-18-f4"):
        modules = list(serving_network(small_network(name)[0], GraphVariant.BLOCKED).modules())
        assert not any(isinstance(module, TemporalAggregation | TemporalShift) for module in modules)


def test_pixels_of_the_mean_colour_give_nothing_up_to_the_border() -> None:
    convolution = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)
    folded = PixelConvolution(convolution)
    mean = 255.0 * torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert folded(mean).abs().max() < 1e-6


def test_filter_cuts_zero_taps_off_but_keeps_the_middle() -> None:
    used = torch.tensor([[0.0], [0.5], [0.25], [0.0], [0.0]])
    assert TimeFilter(used, frames=6).weight.flatten().tolist() == [0.5, 0.25]
    assert TimeFilter(used, frames=6).padding == (0, 0, 1, 0)
    ahead = torch.tensor([[0.0], [0.0], [1.0]])
    assert TimeFilter(ahead, frames=6).weight.flatten().tolist() == [0.0, 1.0]
    assert TimeFilter(torch.zeros(3, 1), frames=6).weight.flatten().tolist() == [0.0]


@pytest.mark.parametrize(
    ("taps", "wanted"),
    [
        ([1.0, 10.0, 100.0], [210.0, 321.0, 432.0, 43.0]),
        ([0.0, 10.0, 100.0], [210.0, 320.0, 430.0, 40.0]),
        ([0.0, 0.0, 100.0], [200.0, 300.0, 400.0, 0.0]),
        ([1.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]),
    ],
)
def test_filter_reads_zeros_beyond_both_ends(taps: list[float], wanted: list[float]) -> None:
    time_filter = TimeFilter(torch.tensor(taps).view(3, 1), frames=4)
    frames = torch.arange(1.0, 5.0)
    assert time_filter(frames.view(4, 1, 1, 1)).flatten().tolist() == wanted
    assert time_filter(frames.view(1, 1, 4, 1, 1)).flatten().tolist() == wanted

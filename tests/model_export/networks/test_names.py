"""Names of networks: what they stand for, and what they refuse."""

from __future__ import annotations

import pytest

from model_export.config import ConfigError, Family, ModelConfig, Stem
from model_export.networks.names import architectures, build, parse_architecture

BLVNET_TAM_50 = ModelConfig(Family.BLVNET_TAM, "50", frames=16, num_classes=7)


@pytest.mark.parametrize(
    ("name", "frames", "config"),
    [
        ("blvnet-tam-50-a2-b4-f8x2", None, BLVNET_TAM_50),
        ("blvnet-tam-50-f8x2", 16, BLVNET_TAM_50),
        ("blvnet-tam-50", 16, BLVNET_TAM_50),
        ("blvnet-tam-50-f8x2-b4-a2", None, BLVNET_TAM_50),
        ("blvnet-101-a4-b2", 64, ModelConfig(Family.BLVNET, "101", 64, 7, alpha=4, beta=2)),
        ("blvnet-tam-152-f32x2-blend7", None, ModelConfig(Family.BLVNET_TAM, "152", 64, 7, taps=7)),
        ("blvnet-tam-50-f4x2-dual", None, ModelConfig(Family.BLVNET_TAM, "50", 8, 7, stem=Stem.DUAL)),
        ("tam-resnet-18-f8", None, ModelConfig(Family.TAM_RESNET, "18", 8, 7)),
        ("tsn-resnet-34", 5, ModelConfig(Family.TSN_RESNET, "34", 5, 7)),
        ("tsm-resnet-152", 8, ModelConfig(Family.TSM_RESNET, "152", 8, 7)),
        ("i3d-resnet-50", 32, ModelConfig(Family.I3D_RESNET, "50", 32, 7)),
        ("tam-i3d-resnet-101", 8, ModelConfig(Family.TAM_I3D_RESNET, "101", 8, 7)),
    ],
)
def test_name_stands_for_a_network(name: str, frames: int | None, config: ModelConfig) -> None:
    assert parse_architecture(name, frames=frames, num_classes=7) == config


def test_eight_times_two_are_sixteen_frames_and_eight_moments() -> None:
    config = parse_architecture("blvnet-tam-50-f8x2", num_classes=7)
    assert (config.frames, config.moments) == (16, 8)


def test_mini_network_needs_nothing_but_its_name() -> None:
    config = parse_architecture("blvnet-tam-mini", num_classes=24)
    assert (config.frames, config.stem) == (16, Stem.DUAL)
    assert parse_architecture(config.architecture, num_classes=24) == config


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("blvnet-tam-51", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam", {"frames": 16}, "unknown architecture"),
        ("resnet-50", {"frames": 16}, "tsn-resnet-{18,34,50,101,152}"),
        ("blvnet-mini", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam-500", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam-50", {}, "does not say how many frames"),
        ("blvnet-tam-50-f8x2", {"frames": 8}, "means frames 16, 8 was asked for"),
        ("blvnet-tam-50-f8x2-blend5", {"taps": 3}, "means taps 5, 3 was asked for"),
        ("blvnet-tam-50-f8x2-dual", {"stem": Stem.SHARED}, "means stem dual, shared was asked for"),
        ("blvnet-tam-50-f16", {}, "are spelled -f8x2"),
        ("tam-resnet-50-f8x2", {}, "are spelled -f16"),
        ("blvnet-tam-50-f8x2-a2-a4", {}, "gives alpha twice"),
        ("blvnet-tam-50-f8x2-x9", {}, "cannot read the option -x9"),
        ("blvnet-tam-50-a0", {"frames": 16}, "cannot read the option -a0"),
        ("tam-resnet-50-a2", {"frames": 8}, "no option for alpha"),
        ("tsn-resnet-50-blend3", {"frames": 8}, "no option for taps"),
        ("blvnet-50-blend3", {"frames": 8}, "no option for taps"),
        ("blvnet-tam-mini-b4", {}, "no option for beta"),
        ("i3d-resnet-50-dual", {"frames": 8}, "no option for stem"),
        ("blvnet-tam-50", {"frames": 15}, "frames must be even"),
        ("blvnet-tam-50", {"frames": 16, "taps": 4}, "taps must be an odd number"),
        ("blvnet-tam-50-a65-f8x2", {}, "alpha and beta must be 1 to 64"),
        ("tsn-resnet-50", {"frames": 8, "size": 16}, "size must be 32 to 4096"),
        ("tsn-resnet-50", {"frames": 8, "stem": Stem.DUAL}, "has one stream"),
        ("tsn-resnet-50", {"frames": 0}, "frames must be 1 to 1024"),
    ],
)
def test_impossible_network_is_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_architecture(name, num_classes=7, **arguments)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", architectures())
def test_canonical_name_reads_back(name: str) -> None:
    config = parse_architecture(name, frames=16, num_classes=7)
    assert parse_architecture(config.architecture, frames=16, num_classes=7) == config


def test_depth_that_a_family_lacks_is_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match="comes in depths 18, 34, 50, 101, 152, not mini"):
        build(ModelConfig(Family.TSN_RESNET, "mini", 8, 7))

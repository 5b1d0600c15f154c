"""Architecture names: the networks that they mean, and names that are refused."""

from __future__ import annotations

import pytest

from model_export.networks.config import ConfigError, Family, ModelConfig, Stem
from model_export.networks.registry import architectures, build, parse_architecture

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
        ("blvnet-tsm-50-a2-b4-f8x2", None, ModelConfig(Family.BLVNET_TSM, "50", 16, 7)),
        ("blvnet-tsm-101-dual", 8, ModelConfig(Family.BLVNET_TSM, "101", 8, 7, stem=Stem.DUAL)),
    ],
)
def test_name_means_a_network(name: str, frames: int | None, config: ModelConfig) -> None:
    assert parse_architecture(name, frames=frames, num_classes=7) == config


def test_eight_times_two_are_sixteen_frames_and_eight_moments() -> None:
    config = parse_architecture("blvnet-tam-50-f8x2", num_classes=7)
    assert (config.frames, config.moments) == (16, 8)


MINIS = ("blvnet-tam-mini", "blvnet-tsm-mini", "blvnet-mini", "tsn-mini", "tsm-mini", "tam-mini", "i3d-mini")


@pytest.mark.parametrize("name", MINIS)
def test_mini_network_needs_nothing_but_its_name(name: str) -> None:
    config = parse_architecture(name, num_classes=24)
    assert (config.frames, config.size) == (16, 64)
    assert config.stem is (Stem.DUAL if name.startswith("blvnet") else Stem.SHARED)
    assert parse_architecture(config.architecture, num_classes=24) == config


@pytest.mark.parametrize("family", ["blvnet-tam", "blvnet-tsm", "blvnet"])
@pytest.mark.parametrize("depth", ["50", "101", "152"])
def test_published_name_has_the_shared_stem_and_dual_must_be_given(family: str, depth: str) -> None:
    name = f"{family}-{depth}-a2-b4-f8x2"
    published = parse_architecture(name, num_classes=7)
    assert (published.stem, published.architecture) == (Stem.SHARED, name)
    dual = parse_architecture(f"{name}-dual", num_classes=7)
    assert (dual.stem, dual.architecture) == (Stem.DUAL, f"{name}-dual")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("blvnet-tam-51", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam", {"frames": 16}, "unknown architecture"),
        ("resnet-50", {"frames": 16}, "tsn-resnet-{18,34,50,101,152}"),
        ("tsn-resnet-mini", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam-500", {"frames": 16}, "unknown architecture"),
        ("blvnet-tam-50", {}, "has no number of frames"),
        ("blvnet-tam-50-f8x2", {"frames": 8}, "has frames 16, which contradicts frames 8"),
        ("blvnet-tam-50-f8x2-blend5", {"taps": 3}, "has taps 5, which contradicts taps 3"),
        ("blvnet-tam-50-f8x2-dual", {"stem": Stem.SHARED}, "has stem dual, which contradicts stem shared"),
        ("blvnet-tam-50-f16", {}, "write the frames of blvnet-tam as -f8x2"),
        ("tam-resnet-50-f8x2", {}, "write the frames of tam-resnet as -f16"),
        ("blvnet-tam-50-f8x2-a2-a4", {}, "gives alpha twice"),
        ("blvnet-tam-50-f8x2-x9", {}, "unknown option -x9"),
        ("blvnet-tam-50-a0", {"frames": 16}, "unknown option -a0"),
        ("tam-resnet-50-a2", {"frames": 8}, "no option for alpha"),
        ("tsn-resnet-50-blend3", {"frames": 8}, "no option for taps"),
        ("blvnet-50-blend3", {"frames": 8}, "no option for taps"),
        ("tsn-resnet-50-f8", {"taps": 5}, "has no temporal aggregation modules, so taps cannot be 5"),
        ("blvnet-tam-mini-b4", {}, "no option for beta"),
        ("i3d-resnet-50-dual", {"frames": 8}, "no option for stem"),
        ("blvnet-tam-50", {"frames": 15}, "frames must be even"),
        ("blvnet-tam-50", {"frames": 16, "taps": 4}, "taps must be an odd number"),
        ("blvnet-tam-50-a65-f8x2", {}, "alpha and beta must be 1 to 64"),
        ("tsn-resnet-50", {"frames": 8, "size": 16}, "size must be 32 to 4096"),
        ("tsn-resnet-50", {"frames": 8, "stem": Stem.DUAL}, "has one input"),
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


def test_depth_that_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="has the depths 18, 34, 50, 101, 152, mini, not 51"):
        build(ModelConfig(Family.TSN_RESNET, "51", 8, 7))

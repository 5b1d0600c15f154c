"""The clips that a configuration asks for, and its stored form."""

from __future__ import annotations

import json

import pytest

from model_export.networks.config import ConfigError, Family, ModelConfig, Stem
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling

SHARED = ModelConfig(Family.BLVNET_TAM, "50", frames=16, num_classes=174)
DUAL = ModelConfig(Family.BLVNET_TAM, "mini", frames=8, num_classes=24, size=97, stem=Stem.DUAL)


def test_shared_stem_takes_both_inputs_at_full_size() -> None:
    assert SHARED.clip_spec() == ClipSpec(
        frames=16,
        inputs=(InputSpec("little", Frames.EVEN, 224, 224), InputSpec("big", Frames.ODD, 224, 224)),
    )


def test_dual_stem_takes_the_big_input_at_half_size_rounded_up() -> None:
    little, big = DUAL.clip_spec().inputs
    assert (little.size, little.scale, big.size, big.scale) == (97, 97, 49, 49)


def test_scale_keeps_its_ratio_in_the_big_input() -> None:
    little, big = ModelConfig(Family.BLVNET_TAM, "50", 16, 7, stem=Stem.DUAL).clip_spec(scale=256).inputs
    assert (little.scale, big.scale) == (256, 128)


def test_one_input_takes_all_frames() -> None:
    config = ModelConfig(Family.TSN_RESNET, "50", frames=5, num_classes=7)
    spec = config.clip_spec(Sampling.DENSE, stride=4)
    assert spec == ClipSpec(5, (InputSpec("frames", Frames.ALL, 224, 224),), Sampling.DENSE, 4)
    assert config.moments == 5


@pytest.mark.parametrize("config", [SHARED, DUAL])
def test_configuration_reads_back_from_json(config: ModelConfig) -> None:
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "resnext"}, "is invalid"),
        ({"stem": None}, "is invalid"),
        ({"frames": "16"}, "is invalid"),
        ({"groups": 16}, "unknown fields in the network configuration: groups"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_stored_configuration_is_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_json(SHARED.to_json() | change)


def test_stored_configuration_without_a_field_is_refused() -> None:
    document = SHARED.to_json()
    del document["depth"]
    with pytest.raises(ConfigError, match="is invalid"):
        ModelConfig.from_json(document)

"""Costs of networks: published figures, and counts by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner, Result

from model_export.checkpoints.checkpoint import save_checkpoint
from model_export.commands.import_info import import_info
from model_export.commands.profile import profile
from model_export.networks.config import Family, ModelConfig
from model_export.networks.registry import architectures, build, parse_architecture
from model_export.profile import STAGES, Profile, count_macs, profile_network
from tests.golden.cases import golden


def profiled(name: str, **options: int) -> Profile:
    return profile_network(parse_architecture(name, num_classes=174, **options))  # type: ignore[arg-type]


def called(command: object, *arguments: str) -> Result:
    app = Typer()
    app.command()(command)  # type: ignore[type-var]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_count_macs_equals_the_profile() -> None:
    config = parse_architecture("blvnet-tam-mini", num_classes=22)
    assert count_macs(build(config), config.clip_spec()) / 1e9 == profile_network(config).total.gmacs


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("blvnet-tam-50-a2-b4-f8x2", 25_020_142, 23.85),
        ("blvnet-tam-50-a2-b4-f16x2", 25_020_142, 47.70),
        ("blvnet-tam-101-a2-b4-f8x2", 40_177_134, 32.15),
        ("blvnet-tam-101-a2-b4-f16x2", 40_177_134, 64.30),
        ("blvnet-tam-101-a2-b4-f24x2", 40_177_134, 96.45),
        ("blvnet-tam-101-a2-b4-f32x2", 40_177_134, 128.60),
    ],
)
def test_published_figures_are_reproduced(name: str, parameters: int, gmacs: float) -> None:
    total = profiled(name).total
    assert total.parameters == parameters
    assert total.gmacs == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize("name", ["tam-resnet-50-f8", "tsn-resnet-50-f8", "i3d-resnet-50-f8"])
def test_parameters_are_those_of_the_authors_networks(name: str) -> None:
    assert profiled(name).total.parameters == golden(name).parameters


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in architectures() if name.endswith("-mini")),
        "blvnet-tsm-50-f8x2",
        "blvnet-tsm-50-f8x2-dual",
    ],
)
def test_every_family_has_costs(name: str) -> None:
    measured = profiled(name)
    assert all(costs.gmacs > 0 and costs.parameters > 0 for costs in measured.stages.values())
    assert (measured.total.tam_gmacs > 0) is measured.config.family.has_tam


def test_shift_costs_no_parameters_and_no_operations() -> None:
    shift, none = profiled("blvnet-tsm-50-f8x2").total, profiled("blvnet-50-f8x2").total
    assert (shift.parameters, shift.gmacs) == (none.parameters, none.gmacs)


def test_stages_add_up() -> None:
    measured = profiled("tam-resnet-18-f8")
    stages = list(measured.stages.values())
    assert list(measured.stages) == list(STAGES)
    assert sum(stage.parameters for stage in stages) == measured.total.parameters
    assert sum(stage.gmacs for stage in stages) == pytest.approx(measured.total.gmacs)
    assert max(stage.activation_bytes for stage in stages) == measured.total.activation_bytes


def test_macs_are_split_by_operation() -> None:
    total = profiled("tam-resnet-18-f8").total
    # The inputs of all blocks, as (channels, side).
    inputs = [(64, 56), (64, 56), (64, 56), (128, 28), (128, 28), (256, 14), (256, 14), (512, 7)]
    taps = sum(3 * 8 * channels * side * side for channels, side in inputs)
    assert total.tam_gmacs == pytest.approx(taps / 1e9)
    assert total.rest_gmacs == pytest.approx(8 * 512 * 174 / 1e9)
    assert total.gmacs == pytest.approx(total.convolution_gmacs + total.tam_gmacs + total.rest_gmacs)


def test_first_stage_keeps_what_its_backward_pass_needs() -> None:
    """TSN's stem at 32 pixels: the input, two maps of conv1, the pooled map and the pooling's indices."""
    config = ModelConfig(Family.TSN_RESNET, "18", frames=1, num_classes=5, size=32)
    stem = profile_network(config).stages["stem"]
    floats = 3 * 32 * 32 + 2 * 64 * 16 * 16 + 64 * 8 * 8
    indices = 8 * 64 * 8 * 8
    assert stem.training_activation_bytes == pytest.approx(4 * floats + indices, rel=0.01)


def test_inference_peak_is_the_first_normalisation() -> None:
    """TSN at 32 pixels: the input, the map of conv1 and its normalised map; later stages need less."""
    config = ModelConfig(Family.TSN_RESNET, "18", frames=1, num_classes=5, size=32)
    floats = 3 * 32 * 32 + 2 * 64 * 16 * 16
    assert profile_network(config).total.activation_bytes == pytest.approx(4 * floats, rel=0.01)


def test_memory_grows_with_frames_and_training_needs_more() -> None:
    short, long = profiled("blvnet-tam-mini-f4x2").total, profiled("blvnet-tam-mini-f8x2").total
    assert long.activation_bytes == pytest.approx(2 * short.activation_bytes, rel=0.01)
    assert long.training_activation_bytes > 2 * long.activation_bytes


def test_dual_stem_costs_less_than_the_shared_one() -> None:
    shared, dual = profiled("blvnet-tam-50-f8x2").total, profiled("blvnet-tam-50-f8x2-dual").total
    assert dual.gmacs < shared.gmacs
    assert dual.activation_bytes < shared.activation_bytes


def test_profile_command_prints_one_json_document() -> None:
    result = called(
        profile, "--arch", "blvnet-tam-50-a2-b4", "--frames", "16", "--num-classes", "7", "--json"
    )
    document = json.loads(result.stdout)
    assert (document["architecture"], document["frames"], document["size"]) == (
        "blvnet-tam-50-a2-b4-f8x2",
        16,
        224,
    )
    assert document["gmacs"] == pytest.approx(23.85, rel=0.01)
    assert {"name", "gmacs", "parameters", "activation_bytes"} <= document["stages"][0].keys()
    assert isinstance(document["activation_bytes"], int)


def test_profile_command_prints_a_table() -> None:
    result = called(profile, "--arch", "blvnet-tam-mini", "--num-classes", "24")
    assert [word for word in (*STAGES, "total", "1,243,864") if word not in result.stdout] == []


def test_import_info_describes_a_published_file(tmp_path: Path) -> None:
    keys = golden("blvnet-tam-50-a2-b4-f8x2-blend5").keys
    weights = {f"module.{key}": torch.zeros(()).expand(shape) for key, shape in keys}
    torch.save({"state_dict": weights, "epoch": 50, "optimizer": {}}, tmp_path / "published.pth.tar")
    facts = json.loads(called(import_info, str(tmp_path / "published.pth.tar"), "--json").stdout)
    assert facts["architectures"] == ["blvnet-tam-50-a2-b4-blend5"]
    assert (facts["taps"], facts["classes"], facts["beta"]) == (5, 174, "3 to 64")
    assert (facts["layout"], facts["trained_in_parallel"], facts["dropout_head"]) == (
        "blvnet-tam",
        True,
        True,
    )
    assert facts["training"] == {"epoch": 50}
    assert facts["optimizer"] is True


def test_import_info_describes_our_own_file(tmp_path: Path) -> None:
    config = ModelConfig(Family.TSN_RESNET, "18", frames=4, num_classes=5, size=32)
    save_checkpoint(tmp_path / "best.pt", config, build(config).state_dict(), {"step": 9})
    shown = called(import_info, str(tmp_path / "best.pt")).stdout
    facts = dict(line.strip().split(maxsplit=1) for line in shown.splitlines() if line.strip())
    assert facts["architectures"] == "tsn-resnet-18"
    assert facts["frames"] == "4"
    assert facts["training"] == "step 9"

"""Whole networks: shapes, folded and unfolded taps, and training on the order of frames."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.config import ModelConfig, Stem
from model_export.networks.normalise import MEAN, STD, normalise
from model_export.networks.registry import architectures, build, parse_architecture
from model_export.networks.unfolded import unfold


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def streams(config: ModelConfig, clips: int = 2) -> list[Tensor]:
    """Normalised noise in the shapes of the configuration's inputs."""
    shapes = [spec.shape(config.frames) for spec in config.clip_spec().inputs]
    return [torch.randn(clips, frames, 3, height, width) for frames, height, width, _ in shapes]


def alive(network: nn.Module) -> nn.Module:
    """Give residual branches, which start at zero, an effect, and set statistics other than 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.parametrize("name", architectures())
def test_network_gives_evidence_per_moment(name: str) -> None:
    config = parse_architecture(name, frames=4, num_classes=5, size=32)
    with torch.device("meta"):
        network = build(config)
        evidence = network(*streams(config))
        features = network.features(*streams(config))
    assert evidence.shape == (2, config.moments, 5)
    assert features.shape == (2, config.moments, network.fc.in_features)


@pytest.mark.parametrize("size", [32, 45, 46, 70])
@pytest.mark.parametrize("stem", list(Stem))
def test_inputs_of_any_size_merge(stem: Stem, size: int) -> None:
    config = parse_architecture("blvnet-tam-50", frames=2, num_classes=5, size=size, stem=stem)
    with torch.device("meta"):
        assert build(config)(*streams(config)).shape == (2, 1, 5)


@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("stem", list(Stem))
def test_network_equals_its_unfolded_form_on_doubled_frames(stem: Stem, taps: int) -> None:
    config = parse_architecture("blvnet-tam-mini", frames=8, num_classes=5, size=48, stem=stem, taps=taps)
    network = alive(build(config)).double()
    inputs = [stream.double() for stream in streams(config)]
    with torch.inference_mode():
        torch.testing.assert_close(network(*inputs), unfold(network)(*inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["tam-resnet-18", "tam-i3d-resnet-18"])
def test_residual_networks_equal_their_unfolded_form(name: str) -> None:
    config = parse_architecture(name, frames=3, num_classes=5, size=32)
    network = alive(build(config)).double()
    inputs = [stream.double() for stream in streams(config)]
    with torch.inference_mode():
        torch.testing.assert_close(network(*inputs), unfold(network)(*inputs), rtol=1e-10, atol=1e-10)


def reversal_effect(name: str) -> float:
    """Relative change of the logits when the pairs of frames are reversed."""
    config = parse_architecture(name, frames=8, num_classes=5, size=32)
    network = alive(build(config))
    inputs = streams(config)
    with torch.inference_mode():
        forwards = network(*inputs).mean(1)
        backwards = network(*(stream.flip(1) for stream in inputs)).mean(1)
    return float((forwards - backwards).abs().max() / forwards.abs().max())


@pytest.mark.parametrize("name", ["blvnet-50", "blvnet-mini", "tsn-resnet-18", "tsn-mini"])
def test_networks_without_temporal_modules_ignore_the_order_of_frames(name: str) -> None:
    assert reversal_effect(name) < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        *("blvnet-tam-mini", "blvnet-tsm-mini", "tam-mini", "tsm-mini", "i3d-mini", "tam-i3d-mini"),
        *("tam-resnet-18", "tsm-resnet-18", "i3d-resnet-18", "tam-i3d-resnet-18", "blvnet-tsm-50"),
    ],
)
def test_networks_with_temporal_modules_depend_on_the_order_of_frames(name: str) -> None:
    assert reversal_effect(name) > 1e-3


@pytest.mark.parametrize("name", [name for name in architectures() if name.endswith("-mini")])
def test_mini_network_is_small_enough_to_bundle(name: str) -> None:
    with torch.device("meta"):
        network = build(parse_architecture(name, num_classes=24))
    most = 2_600_000 if "i3d" in name else 1_600_000  # 3D kernels have three times the weights
    assert 900_000 < sum(parameter.numel() for parameter in network.parameters()) < most


def brightening(clips: int, config: ModelConfig) -> tuple[list[Tensor], Tensor]:
    """Clips that become brighter (1) or darker (0): they differ only in the order of frames."""
    ramp = torch.linspace(-1.0, 1.0, config.frames).reshape(1, -1, 1, 1, 1)
    labels = torch.arange(clips) % 2
    noise = 0.3 * torch.randn(clips, config.frames, 3, config.size, config.size)
    clip = noise + ramp * (2.0 * labels - 1.0).reshape(-1, 1, 1, 1, 1)
    big = F.avg_pool2d(clip[:, 1::2].flatten(0, 1), 2).reshape(
        clips, -1, 3, config.size // 2, config.size // 2
    )
    return [clip[:, 0::2], big], labels


def test_mini_network_learns_the_direction_of_time() -> None:
    config = parse_architecture("blvnet-tam-mini", frames=8, num_classes=2, size=32, dropout=0.0)
    network = build(config)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    accuracies = []
    for _ in range(40):
        inputs, labels = brightening(8, config)
        logits = network(*inputs).mean(1)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        accuracies.append(float((logits.argmax(1) == labels).float().mean()))
    assert sum(accuracies[-10:]) / 10 > 0.9


def test_gradients_in_bfloat16_point_where_those_in_float32_do() -> None:
    config = parse_architecture("blvnet-tam-mini", frames=4, num_classes=2, size=32, dropout=0.0)
    network = alive(build(config))  # statistics of few clips would multiply every difference
    inputs, labels = brightening(4, config)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(*inputs).float().mean(1)
        network.zero_grad()
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        gradients.append(
            torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])
        )
    exact, rounded = gradients
    assert rounded.isfinite().all()
    assert not torch.equal(rounded, exact)
    assert F.cosine_similarity(rounded, exact, dim=0) > 0.95


def test_normalised_frames_have_mean_0_and_deviation_1_and_are_channels_last() -> None:
    frames = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    expected = (frames / 255.0 - torch.tensor(MEAN)) / torch.tensor(STD)
    normal = normalise(frames)
    torch.testing.assert_close(normal, expected.permute(0, 1, 4, 2, 3))
    assert normal.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)

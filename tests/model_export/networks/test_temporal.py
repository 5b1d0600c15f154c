"""Temporal modules: folded taps equal the unfolded form, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_export.networks.registry import build, parse_architecture
from model_export.networks.temporal import (
    NoTemporalModule,
    TamInit,
    TemporalAggregation,
    TemporalShift,
    fold_matrix,
    fold_taps,
    shift_taps,
)
from model_export.networks.unfolded import UnfoldedAggregation

TAPS = (1, 3, 5, 7, 9)
FRAMES = (2, 4, 6, 16)
CHANNELS = 16


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def both_forms(taps: int, frames: int) -> tuple[TemporalAggregation, UnfoldedAggregation]:
    module = TemporalAggregation(CHANNELS, frames, taps).double()
    with torch.no_grad():
        module.taps.normal_()
    return module, UnfoldedAggregation(module)


def features(frames: int, clips: int = 2) -> Tensor:
    x: Tensor = torch.randn(clips * frames, CHANNELS, 3, 5, dtype=torch.float64, requires_grad=True)
    return x


def assert_close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("taps", TAPS)
def test_folded_taps_equal_unfolded_taps_on_the_doubled_sequence(taps: int, frames: int) -> None:
    module, plain = both_forms(taps, frames)
    merged = features(frames // 2)
    for folded, doubled in zip(module.split_merged(merged), plain.split_merged(merged), strict=True):
        assert_close(folded, doubled)


@pytest.mark.parametrize("taps", TAPS)
def test_folded_taps_have_the_gradients_of_the_doubled_sequence(taps: int) -> None:
    module, plain = both_forms(taps, 8)
    merged = features(4)
    gradients = []
    for form in (module, plain):
        little, big = form.split_merged(merged)
        loss = (little.square() + 3 * big).sum()
        gradients.append(torch.autograd.grad(loss, (merged, form.taps)))
    for folded, doubled in zip(*gradients, strict=True):
        assert_close(folded, doubled)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("taps", TAPS)
def test_split_gives_even_and_odd_frames_of_the_aggregated_clip(taps: int, frames: int) -> None:
    module, plain = both_forms(taps, frames)
    x = features(frames)
    little, big = module.split(x)
    assert_close(little, plain(x)[0::2])
    assert_close(big, plain(x)[1::2])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 8])
@pytest.mark.parametrize("taps", TAPS)
def test_aggregation_equals_its_definition(taps: int, frames: int, channels_last: bool) -> None:
    module, plain = both_forms(taps, frames)
    x = features(frames)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    assert_close(module(x), plain(x))


def test_aggregation_of_volumes_equals_that_of_frames() -> None:
    module, plain = both_forms(5, 4)
    volume = torch.randn(2, CHANNELS, 4, 3, 5, dtype=torch.float64)
    frames = volume.transpose(1, 2).flatten(0, 1)
    by_frames = module(frames).reshape(2, 4, CHANNELS, 3, 5).transpose(1, 2)
    assert_close(module(volume), by_frames)
    assert_close(plain(volume), by_frames)


def test_aggregation_of_channels_last_frames_stays_channels_last() -> None:
    module, _ = both_forms(3, 4)
    x = features(4).contiguous(memory_format=torch.channels_last)
    assert module(x).is_contiguous(memory_format=torch.channels_last)


def test_clips_of_a_batch_do_not_mix() -> None:
    module, _ = both_forms(7, 4)
    x = features(4, clips=3)
    alone = torch.cat([module(clip) for clip in x.chunk(3)])
    assert_close(module(x), alone)


def test_three_taps_fold_to_the_sums_of_the_paper() -> None:
    p, c, n = torch.tensor([[2.0], [3.0], [5.0]])
    little, big = fold_taps(torch.stack((p, c, n)))
    assert little.tolist() == [[2.0], [8.0], [0.0]]
    assert big.tolist() == [[0.0], [5.0], [5.0]]


@pytest.mark.parametrize("taps", TAPS)
def test_every_tap_counts_once_in_each_branch(taps: int) -> None:
    assert fold_matrix(taps).sum(dim=1).eq(1).all()


@pytest.mark.parametrize("channels", [8, 20, 64])
def test_shift_is_aggregation_with_fixed_taps(channels: int) -> None:
    taps = TemporalAggregation(channels, 5, relu=False)
    taps.taps = nn.Parameter(shift_taps(channels))
    x = torch.randn(10, channels, 3, 3)
    assert torch.equal(TemporalShift(channels, 5)(x), taps(x))


def test_shift_moves_an_eighth_each_way_and_fills_with_zeros() -> None:
    clip = torch.arange(1.0, 4.0).reshape(3, 1, 1, 1).expand(3, 8, 1, 1)
    shifted = TemporalShift(8, 3)(clip).flatten(1)
    assert shifted[:, 0].tolist() == [2.0, 3.0, 0.0]
    assert shifted[:, 1].tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(shifted[:, 2:], clip.flatten(1)[:, 2:])


@pytest.mark.parametrize("frames", FRAMES)
def test_shift_of_merged_features_is_that_of_the_doubled_sequence(frames: int) -> None:
    shift = TemporalShift(CHANNELS, frames)
    merged = features(frames // 2)
    doubled = shift(merged.repeat_interleave(2, dim=0))
    little, big = shift.split_merged(merged)
    assert torch.equal(little, doubled[0::2])
    assert torch.equal(big, doubled[1::2])
    assert all(map(torch.equal, shift.split(merged.repeat_interleave(2, dim=0)), (little, big)))


def test_taps_of_the_paper_are_drawn_around_zero() -> None:
    config = parse_architecture("blvnet-tam-mini", num_classes=3)
    modules = [
        module for module in build(config, TamInit.PAPER).modules() if isinstance(module, TemporalAggregation)
    ]
    scaled = torch.cat(
        [(module.taps.detach() / (2 / module.taps.shape[1]) ** 0.5).flatten() for module in modules]
    )
    assert abs(float(scaled.mean())) < 0.1
    assert float(scaled.std()) == pytest.approx(1.0, abs=0.1)
    shifted = build(config, TamInit.SHIFT).get_parameter("layer1.tam.taps")
    assert int(shifted.abs().argmax(dim=0).bincount()[1]) == shifted.shape[1] * 3 // 4


def test_without_a_temporal_module_frames_are_only_split() -> None:
    x = features(4)
    little, big = NoTemporalModule().split(x)
    assert torch.equal(little, x[0::2])
    assert torch.equal(big, x[1::2])
    assert all(stream is x for stream in NoTemporalModule().split_merged(x))


def test_initial_taps_shift_an_eighth_of_the_channels_each_way() -> None:
    strongest = TemporalAggregation(64, 8, 5).taps.abs().argmax(dim=0)
    assert strongest.bincount(minlength=5).tolist() == [0, 8, 48, 8, 0]

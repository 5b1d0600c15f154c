"""The first convolution on blocks of pixels equals the one on pixels, for every kernel size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_export.export.rewrites.space_to_depth import FirstConvolution, SpaceToDepthConvolution


def pixels(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_blocks_equal_pixels(kernel: int) -> None:
    convolution = nn.Conv2d(3, 4, kernel, stride=2, padding=kernel // 2)
    first = FirstConvolution(convolution)
    frames = pixels(2, 3, 16, 20)
    wanted = first.pixels(frames.flatten(0, 1).permute(0, 3, 1, 2))
    torch.testing.assert_close(first.blocks(frames), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 3])
def test_blocks_equal_pixels_in_three_dimensions(depth: int) -> None:
    convolution = nn.Conv3d(3, 4, (depth, 7, 7), (1, 2, 2), (depth // 2, 3, 3))
    first = FirstConvolution(convolution)
    frames = pixels(2, 3, 16, 20)
    wanted = first.pixels(frames.permute(0, 4, 1, 2, 3))
    torch.testing.assert_close(first.blocks(frames), wanted, rtol=1e-4, atol=1e-5)


def test_seven_rows_of_three_channels_are_four_of_twelve() -> None:
    assert SpaceToDepthConvolution(nn.Conv2d(3, 4, 7, stride=2, padding=3)).weight.shape == (4, 12, 4, 4)


def test_sides_that_are_no_whole_blocks_are_read_by_pixels() -> None:
    first = FirstConvolution(nn.Conv2d(3, 4, 7, stride=2, padding=3))
    assert first(pixels(1, 2, 15, 16)).shape == (2, 4, 8, 8)

"""Residual blocks, once for every network: 2D or 3D convolutions, with or without a temporal module.

A temporal module sits in front of the block's first convolution, inside the residual branch, so that the
identity path carries each frame's own features unchanged. The networks differ in one detail: what the
projection shortcut sees. In TAM-ResNet (as in TSM) it is the block's input, in bLVNet-TAM's last layer the
aggregated features; where there is no projection, both add the block's input.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Dimensions = Literal[2, 3]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions (ResNet-18 and -34)."""

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        shortcut: nn.Module | None = None,
        temporal: nn.Module | None = None,
        dimensions: Dimensions = 2,
    ) -> None:
        super().__init__()
        self.tam = temporal
        self.conv1 = convolution(inputs, width, 3, stride, dimensions)
        self.bn1 = normalisation(width, dimensions)
        self.conv2 = convolution(width, width, 3, 1, dimensions)
        self.bn2 = normalisation(width, dimensions)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs, H, W) -> (..., width, H / stride, W / stride)."""
        out = x if self.tam is None else self.tam(x)
        out = self.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(out + identity)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions.

    Args:
        inputs: channels that come in.
        width: channels of the 3 x 3 convolution.
        outputs: channels that go out.
        stride: of the 3 x 3 convolution, in space.
        shortcut: the projection; None adds the block's input.
        temporal: the temporal module in front of the first convolution.
        aggregated_shortcut: the projection sees the temporal module's output (module docs).
        last_relu: False where a sum and its ReLU follow outside.
        dimensions: 2, or 3 for convolutions whose 3 x 3 kernels also reach over 3 frames.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        *,
        stride: int = 1,
        shortcut: nn.Module | None = None,
        temporal: nn.Module | None = None,
        aggregated_shortcut: bool = False,
        last_relu: bool = True,
        dimensions: Dimensions = 2,
    ) -> None:
        super().__init__()
        self.tam = temporal
        self.conv1 = convolution(inputs, width, 1, 1, dimensions)
        self.bn1 = normalisation(width, dimensions)
        self.conv2 = convolution(width, width, 3, stride, dimensions)
        self.bn2 = normalisation(width, dimensions)
        self.conv3 = convolution(width, outputs, 1, 1, dimensions)
        self.bn3 = normalisation(outputs, dimensions)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.aggregated_shortcut = aggregated_shortcut
        self.last_relu = last_relu

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs, H, W) -> (..., outputs, H / stride, W / stride)."""
        aggregated = x if self.tam is None else self.tam(x)
        out = self.relu(self.bn1(self.conv1(aggregated)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is None:
            identity = x
        else:
            identity = self.downsample(aggregated if self.aggregated_shortcut else x)
        out = out + identity
        return self.relu(out) if self.last_relu else out  # type: ignore[no-any-return]


def convolution(inputs: int, outputs: int, kernel: int, stride: int, dimensions: Dimensions) -> nn.Module:
    """A convolution without bias that keeps its input's size divided by `stride`; time is never strided."""
    padding = kernel // 2
    if dimensions == 2:
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, bias=False)


def normalisation(channels: int, dimensions: Dimensions) -> nn.Module:
    """Batch normalisation."""
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


def initialise(network: nn.Module) -> None:
    """Weights to start from: He et al.'s normal for convolutions, and residual branches that begin at zero.

    The last normalisation of each block starts with scale 0, so that every block begins as the identity
    (Goyal et al., arXiv 1706.02677, section 5.1). Temporal modules keep the taps that they were made with.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.001)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(_scale(module.bn2))
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(_scale(module.bn3))


def _scale(norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    return norm.weight

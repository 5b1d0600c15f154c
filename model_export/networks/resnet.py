"""ResNets on frames: TSN (no exchange in time), TSM and TAM in every residual block; and I3D in 3D.

He et al., arXiv 1512.03385, as torchvision builds it (stride in the 3 x 3 convolution). The layout is that
of the published TAM-ResNet and I3D-ResNet checkpoints (IBM/action-recognition-pytorch), without temporal
pooling, so all T frames reach the classifier.

- TSN: Wang et al., arXiv 1608.00859.
- TSM: Lin et al., arXiv 1811.08383; the shift is in the residual branch of every block.
- TAM-ResNet: Fan et al., arXiv 1912.00869, section 4.3.
- I3D-ResNet: all 3 x 3 kernels of the blocks reach over 3 frames too, conv1 is 3 x 7 x 7; time is never
  strided.
- TAM in a 3D network sits in front of each block's first convolution, as in TAM-ResNet. That convolution is
  1 x 1 x 1 in the bottleneck and sees one frame; behind a TAM it mixes channels of neighbouring frames at r
  weights a channel, before the 3 x 3 x 3 convolution spends most of the block's work. Behind that
  convolution TAM would only repeat what its kernel can express.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_export.config import Family, ModelConfig
from model_export.networks.residual import (
    BasicBlock,
    Bottleneck,
    Dimensions,
    convolution,
    initialise,
    normalisation,
)
from model_export.networks.temporal import TemporalAggregation, TemporalShift

BLOCKS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck
Temporal = Callable[[int], nn.Module]  # channels -> the module in front of a block's first convolution


class _Layers(nn.Module):
    """conv1 to layer4, in 2 or 3 dimensions."""

    def __init__(self, depth: str, temporal: Temporal | None, dimensions: Dimensions) -> None:
        super().__init__()
        self.bottlenecks = int(depth) >= 50
        self.temporal = temporal
        self.dimensions: Dimensions = dimensions
        self.relu = nn.ReLU(inplace=True)
        self.bn1 = normalisation(WIDTHS[0], dimensions)
        self.outputs = WIDTHS[0]
        layers = [
            self._layer(width, blocks, stride=1 if level == 0 else 2)
            for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True))
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def _layer(self, width: int, blocks: int, stride: int) -> nn.Sequential:
        return nn.Sequential(*(self._block(width, stride if index == 0 else 1) for index in range(blocks)))

    def _block(self, width: int, stride: int) -> nn.Module:
        inputs, self.outputs = self.outputs, width * (EXPANSION if self.bottlenecks else 1)
        shortcut = None
        if stride != 1 or inputs != self.outputs:
            shortcut = nn.Sequential(
                convolution(inputs, self.outputs, 1, stride, self.dimensions),
                normalisation(self.outputs, self.dimensions),
            )
        temporal = self.temporal(inputs) if self.temporal else None
        if not self.bottlenecks:
            return BasicBlock(
                inputs,
                width,
                stride=stride,
                shortcut=shortcut,
                temporal=temporal,
                dimensions=self.dimensions,
            )
        return Bottleneck(
            inputs,
            width,
            self.outputs,
            stride=stride,
            shortcut=shortcut,
            temporal=temporal,
            dimensions=self.dimensions,
        )

    def blocks(self, x: Tensor) -> Tensor:
        """What conv1's pooling gives -> the last feature maps."""
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


class FrameResNet(_Layers):
    """TSN-, TSM- and TAM-ResNet: a ResNet on every frame, with that family's temporal module in each block.

    `forward(frames)`: normalised frames (N, T, 3, S, S) -> evidence (N, T, classes).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.depth, _temporal(config), dimensions=2)
        self.frames = config.frames
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(self.outputs, config.num_classes)
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Evidence per frame; see the class."""
        x = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # [N * T, 3, S, S]
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [N * T, 64, S / 4, S / 4]
        x = self.blocks(x)  # [N * T, C, S / 32, S / 32]
        x = x.mean(dim=(2, 3))  # not adaptive_avg_pool2d, which exports as index arithmetic
        return self.fc(self.dropout(x)).unflatten(0, (-1, self.frames))  # type: ignore[no-any-return]


class I3DResNet(_Layers):
    """I3D-ResNet: a ResNet whose 3 x 3 kernels are 3 x 3 x 3; TAM-I3D-ResNet with a TAM in each block.

    `forward(frames)`: normalised frames (N, T, 3, S, S) -> evidence (N, T, classes).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.depth, _temporal(config), dimensions=3)
        self.conv1 = nn.Conv3d(3, WIDTHS[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(self.outputs, config.num_classes)
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Evidence per frame; see the class."""
        x = frames.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)  # [N, 3, T, S, S]
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [N, 64, T, S / 4, S / 4]
        x = self.blocks(x)  # [N, C, T, S / 32, S / 32]
        x = x.mean(dim=(3, 4)).transpose(1, 2)  # [N, T, C]
        return self.fc(self.dropout(x))  # type: ignore[no-any-return]


def _temporal(config: ModelConfig) -> Temporal | None:
    match config.family:
        case Family.TAM_RESNET | Family.TAM_I3D_RESNET:
            return lambda channels: TemporalAggregation(channels, config.frames, config.taps)
        case Family.TSM_RESNET:
            return lambda channels: TemporalShift(channels, config.frames)
        case _:
            return None

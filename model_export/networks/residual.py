"""Parts that all networks share: residual blocks, the sizes of the stages, the classifier, initial weights.

A temporal module stands before the first convolution of a block, inside the residual branch, so that the
identity path carries each frame's own features unchanged. The networks differ in the input of the projection
shortcut: the block's input in TAM-ResNet (as in TSM), the aggregated features in the last stage of
bLVNet-TAM. A shortcut without projection always adds the block's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Dimensions = Literal[2, 3]


@dataclass(frozen=True)
class StageSpec:
    """Residual blocks at one resolution.

    Attributes:
        blocks: number of blocks.
        width: channels of their 3 x 3 convolutions.
        outputs: channels of their outputs; the same as `width` in stages of basic blocks.
    """

    blocks: int
    width: int
    outputs: int


@dataclass(frozen=True)
class BackboneSpec:
    """Channels of the stem, and the four stages."""

    stem: int
    stages: tuple[StageSpec, StageSpec, StageSpec, StageSpec]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(stage.blocks for stage in self.stages)


def resnet_spec(blocks: tuple[int, int, int, int], expansion: int = 4) -> BackboneSpec:
    """A ResNet: 64 channels in the stem, blocks of 64 to 512 channels with `expansion` times the outputs."""
    one, two, three, four = (
        StageSpec(count, 64 << level, expansion * 64 << level) for level, count in enumerate(blocks)
    )
    return BackboneSpec(stem=64, stages=(one, two, three, four))


# Small enough to bundle. The bottlenecks have half of the outputs' channels, because a quarter would leave
# vector units idle.
MINI_SPEC = BackboneSpec(
    stem=32,
    stages=(StageSpec(2, 32, 64), StageSpec(3, 64, 128), StageSpec(3, 96, 192), StageSpec(2, 128, 384)),
)


class VideoClassifier(nn.Module):
    """Base class of the networks: features of each moment of a clip, and a linear classifier on them.

    `forward(*inputs)` takes normalised inputs and returns the evidence (N, T', C); the logits are its mean
    over axis 1. A subclass sets `dropout` and `fc`.
    """

    dropout: nn.Dropout
    fc: nn.Linear

    def features(self, *inputs: Tensor) -> Tensor:
        """Normalised inputs -> (N, T', F), pooled over space: the input of the classifier."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """Normalised inputs -> evidence (N, T', C)."""
        return self.fc(self.dropout(self.features(*inputs)))  # type: ignore[no-any-return]


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
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution.

    Args:
        inputs: input channels.
        width: channels of the 3 x 3 convolution.
        outputs: output channels.
        stride: spatial stride of the 3 x 3 convolution.
        shortcut: the projection; None adds the block's input.
        temporal: the temporal module before the first convolution.
        aggregated_shortcut: whether the projection takes the temporal module's output (module docstring).
        last_relu: False where the caller adds another branch before the ReLU.
        dimensions: 3 for 3D convolutions, whose 3 x 3 kernels also cover 3 frames.
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
    """A convolution without bias; it divides the sides by `stride` and keeps the number of frames."""
    padding = kernel // 2
    if dimensions == 2:
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, bias=False)


def normalisation(channels: int, dimensions: Dimensions) -> nn.Module:
    """Batch normalisation."""
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


def initialise(network: nn.Module) -> None:
    """Draw initial weights: He et al.'s normal distribution for convolutions, N(0, 0.001) for the classifier.

    The last normalisation of each block starts with scale 0, so that every block starts as the identity
    (Goyal et al., arXiv 1706.02677, section 5.1). Temporal modules keep their taps.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.001)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
            assert isinstance(last, nn.BatchNorm2d | nn.BatchNorm3d)
            nn.init.zeros_(last.weight)

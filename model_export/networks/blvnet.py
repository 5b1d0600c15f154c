"""bLVNet and bLVNet-TAM: a deep big branch at half resolution, a shallow little branch at full resolution.

Fan, Chen, Kuehne, Pistoia, Cox, "More Is Less: Learning Efficient Video Representations by Big-Little
Network and Depthwise Temporal Aggregation", NeurIPS 2019, arXiv 1912.00869; the authors' code is
IBM/bLVNet-TAM.

    little frames 0, 2, 4 ..  ──┐
                                stem ─> layer1 ─> layer2 ─> layer3 ─> layer4 ─> fc ─> evidence
    big frames    1, 3, 5 ..  ──┘

Every stage but layer4 splits into the two branches and merges them again; what leaves a stage are the merged
features b[i] of frame pair i, (N * T/2, C, H, W). The authors copy them to both frames of the pair for the
next TAM; here that copy is folded into the taps (`temporal`). Layer4 sees the merged features only.

Parameters have the authors' names, but for `stem.`, and `taps` for the weights of a TAM; `checkpoint`
translates. Two stems (`config.Stem`): with the shared one, both streams arrive at S x S, run through conv1
together and the TAM looks across all T frames; with the dual one, the big stream arrives at half the size,
conv1 runs on each stream at its own resolution, and so do a TAM and batch statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.config import Family, ModelConfig, Stem
from model_export.networks.residual import Bottleneck, initialise
from model_export.networks.temporal import NoAggregation, TemporalAggregation


@dataclass(frozen=True)
class Stage:
    """Residual blocks at one resolution: how many, channels of their 3 x 3 convolutions, channels given."""

    blocks: int
    width: int
    outputs: int


@dataclass(frozen=True)
class Plan:
    """Channels of the stem and the four stages."""

    stem: int
    stages: tuple[Stage, Stage, Stage, Stage]


def resnet_plan(blocks: tuple[int, int, int, int]) -> Plan:
    """bLResNet: 64 channels in the stem, 256 to 2048 behind the stages, bottlenecks of a quarter."""
    one, two, three, four = (Stage(count, 64 << level, 256 << level) for level, count in enumerate(blocks))
    return Plan(stem=64, stages=(one, two, three, four))


# The authors' block counts; they are not those of the plain ResNets, as a merge adds a block to each stage.
PLANS = {
    "50": resnet_plan((3, 4, 6, 3)),
    "101": resnet_plan((4, 8, 18, 3)),
    "152": resnet_plan((5, 12, 30, 3)),
    # Small enough to bundle. Bottlenecks of a half, as a quarter of so few channels would leave vector
    # units idle.
    "mini": Plan(
        stem=32, stages=(Stage(2, 32, 64), Stage(3, 64, 128), Stage(3, 96, 192), Stage(2, 128, 384))
    ),
}


class BLVNet(nn.Module):
    """bLVNet-TAM, or bLVNet where the configuration's family has no TAM.

    `forward(little, big)`: normalised frames, little (N, T/2, 3, S, S) and big (N, T/2, 3, B, B) with B from
    `ModelConfig.big_size` -> evidence (N, T/2, classes); logits are its mean over axis 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        plan = PLANS[config.depth]
        one, two, three, four = plan.stages
        self.moments = config.moments
        self.stem = (DualStem if config.stem is Stem.DUAL else SharedStem)(config, plan.stem)
        self.layer1 = BigLittleStage(config, plan.stem, one, stride=2)
        self.layer2 = BigLittleStage(config, one.outputs, two, stride=2)
        self.layer3 = BigLittleStage(config, two.outputs, three, stride=1)
        self.layer4 = _last_layer(config, three.outputs, four)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(four.outputs, config.num_classes)
        initialise(self)

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """Evidence of both streams; see the class."""
        x = self.stem(little, big)  # [N * T/2, 64, S / 4, S / 4]
        x = self.layer1(x)  # [N * T/2, 256, S / 8, S / 8]
        x = self.layer2(x)  # [N * T/2, 512, S / 16, S / 16]
        x = self.layer3(x)  # [N * T/2, 1024, S / 16, S / 16]
        x = self.layer4(x)  # [N * T/2, 2048, S / 32, S / 32]
        x = x.mean(dim=(2, 3))  # not adaptive_avg_pool2d, which exports as index arithmetic
        return self.fc(self.dropout(x)).unflatten(0, (-1, self.moments))  # type: ignore[no-any-return]


class _Stem(nn.Module):
    """What both stems share: the first convolution, and the branches up to the first merge."""

    def __init__(self, config: ModelConfig, channels: int, big_stride: int) -> None:
        super().__init__()
        little = channels // config.alpha
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.b_conv0 = nn.Conv2d(channels, channels, 3, stride=big_stride, padding=1, bias=False)
        self.bn_b0 = nn.BatchNorm2d(channels)
        self.l_conv0 = nn.Conv2d(channels, little, 3, padding=1, bias=False)
        self.bn_l0 = nn.BatchNorm2d(little)
        self.l_conv1 = nn.Conv2d(little, little, 3, stride=2, padding=1, bias=False)
        self.bn_l1 = nn.BatchNorm2d(little)
        self.l_conv2 = nn.Conv2d(little, channels, 1, bias=False)
        self.bn_l2 = nn.BatchNorm2d(channels)
        self.bl_init = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_bl_init = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def merge(self, little: Tensor, big: Tensor) -> Tensor:
        """Features of both streams behind the first TAM -> merged features at S / 4."""
        big = self.bn_b0(self.b_conv0(big))
        little = self.relu(self.bn_l0(self.l_conv0(little)))
        little = self.relu(self.bn_l1(self.l_conv1(little)))
        little = self.bn_l2(self.l_conv2(little))
        merged = self.relu(big + little)
        return self.relu(self.bn_bl_init(self.bl_init(merged)))  # type: ignore[no-any-return]


class SharedStem(_Stem):
    """Both streams at S x S; the TAM looks across all T frames."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(config, channels, big_stride=2)
        self.tam = _split_aggregation(config, channels)

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """(N, T/2, 3, S, S) twice -> (N * T/2, C, S / 4, S / 4)."""
        x = _channels_last(torch.stack((little, big), dim=2).flatten(0, 2))  # [N * T, 3, S, S], in order
        x = self.relu(self.bn1(self.conv1(x)))
        return self.merge(*self.tam.split(x))


class DualStem(_Stem):
    """Little at S x S, big at half of that; each stream has its own TAM, T/2 frames long, and statistics."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(config, channels, big_stride=1)
        self.big_bn1 = nn.BatchNorm2d(channels)
        self.tam = _aggregation(config, channels)
        self.big_tam = _aggregation(config, channels)

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """(N, T/2, 3, S, S) and (N, T/2, 3, S / 2, S / 2) -> (N * T/2, C, S / 4, S / 4)."""
        little = self.relu(self.bn1(self.conv1(_channels_last(little.flatten(0, 1)))))
        big = self.relu(self.big_bn1(self.conv1(_channels_last(big.flatten(0, 1)))))
        return self.merge(self.tam(little), self.big_tam(big))


class BigLittleStage(nn.Module):
    """One stage (paper figure 2): TAM, a deep branch at half resolution, a shallow one, merge, one block.

    (N * T/2, inputs, H, W) merged features -> (N * T/2, outputs, H / stride, W / stride).
    """

    def __init__(self, config: ModelConfig, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        narrow = Stage(
            blocks=max(1, stage.blocks // config.beta - 1),
            width=stage.width // config.alpha,
            outputs=stage.outputs // config.alpha,
        )
        deep = Stage(stage.blocks - 1, stage.width, stage.outputs)
        self.tam = _split_aggregation(config, inputs)
        self.big = _branch(inputs, deep, stride=2, last_relu=False)
        self.little = _branch(inputs, narrow, stride=1, last_relu=True)
        self.little_e = nn.Sequential(
            nn.Conv2d(narrow.outputs, stage.outputs, 1, bias=False), nn.BatchNorm2d(stage.outputs)
        )
        self.enlarged = Enlarged()
        self.relu = nn.ReLU(inplace=True)
        self.fusion = _branch(stage.outputs, Stage(1, stage.width, stage.outputs), stride, last_relu=True)

    def forward(self, merged: Tensor) -> Tensor:
        """The next stage's merged features."""
        little, big = self.tam.split_merged(merged)
        little = self.little_e(self.little(little))
        big = self.enlarged(self.big(big), little)
        return self.fusion(self.relu(big + little))  # type: ignore[no-any-return]


class Enlarged(nn.Module):
    """The big branch's maps at the little branch's size, by repeating pixels (nearest neighbour)."""

    def forward(self, small: Tensor, like: Tensor) -> Tensor:
        """(N, C, h, w) and any (N, C', H, W) -> (N, C, H, W); also with an axis of time in front of space."""
        return F.interpolate(small, size=like.shape[2:])


def _branch(inputs: int, stage: Stage, stride: int, last_relu: bool) -> nn.Sequential:
    """Bottlenecks in a row; the first strides, the last of several may leave its ReLU to a sum outside."""
    first = _bottleneck(inputs, stage, stride)
    rest = (
        _bottleneck(stage.outputs, stage, 1, last_relu=last_relu or index < stage.blocks - 1)
        for index in range(1, stage.blocks)
    )
    return nn.Sequential(first, *rest)


def _last_layer(config: ModelConfig, inputs: int, stage: Stage) -> nn.Sequential:
    """Layer4: plain bottlenecks on merged features, each with a TAM over the T/2 moments."""
    blocks = []
    for index in range(stage.blocks):
        channels = inputs if index == 0 else stage.outputs
        temporal = _aggregation(config, channels)
        blocks.append(_bottleneck(channels, stage, 2 if index == 0 else 1, temporal=temporal))
    return nn.Sequential(*blocks)


def _bottleneck(
    inputs: int, stage: Stage, stride: int, *, last_relu: bool = True, temporal: nn.Module | None = None
) -> Bottleneck:
    return Bottleneck(
        inputs,
        stage.width,
        stage.outputs,
        stride=stride,
        shortcut=_shortcut(inputs, stage.outputs, stride),
        temporal=temporal,
        aggregated_shortcut=True,
        last_relu=last_relu,
    )


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """Average pooling where the block strides, a projection where channels change, else None."""
    steps: list[nn.Module] = []
    if stride != 1:
        steps.append(nn.AvgPool2d(3, stride=stride, padding=1))
    if inputs != outputs:
        steps += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*steps) if steps else None


def _split_aggregation(config: ModelConfig, channels: int) -> TemporalAggregation | NoAggregation:
    if config.family is Family.BLVNET:
        return NoAggregation()
    return TemporalAggregation(channels, config.frames, config.taps)


def _aggregation(config: ModelConfig, channels: int) -> nn.Module:
    if config.family is Family.BLVNET:
        return nn.Identity()
    return TemporalAggregation(channels, config.moments, config.taps)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)

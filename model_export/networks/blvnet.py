"""bLVNet and bLVNet-TAM: a deep big branch at half resolution, a shallow little branch at full resolution.

Fan, Chen, Kuehne, Pistoia, Cox, "More Is Less: Learning Efficient Video Representations by Big-Little
Network and Depthwise Temporal Aggregation", NeurIPS 2019, arXiv 1912.00869; the authors' code is
IBM/bLVNet-TAM.

    little frames 0, 2, 4 ..  ──┐
                                stem ─> layer1 ─> layer2 ─> layer3 ─> layer4 ─> fc ─> evidence
    big frames    1, 3, 5 ..  ──┘

Every stage but layer4 splits into the two branches and merges them again. Its output is the merged features
b[i] of frame pair i, (N * T/2, C, H, W). The authors copy them to both frames of the pair for the next TAM;
here that copy is folded into the taps (`temporal`). Layer4 takes the merged features only.

Parameters have the authors' names, except for the prefix `stem.` and `taps` for the weights of a TAM;
`checkpoints.layouts` translates. There are two stems (`config.Stem`). In the shared one, both inputs are S x
S and go through conv1 together, and the TAM covers all T frames. In the dual one, the big input is half the
size; conv1 runs on each input at its own resolution, with its own TAM and batch statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.config import MINI, ModelConfig, Stem
from model_export.networks.residual import (
    MINI_SPEC,
    BackboneSpec,
    Bottleneck,
    StageSpec,
    VideoClassifier,
    initialise,
    resnet_spec,
)
from model_export.networks.temporal import temporal_module

# The authors' block counts. They differ from those of the plain ResNets, as a merge adds a block to a stage.
BLRESNETS: dict[str, BackboneSpec] = {
    "50": resnet_spec((3, 4, 6, 3)),
    "101": resnet_spec((4, 8, 18, 3)),
    "152": resnet_spec((5, 12, 30, 3)),
    MINI: MINI_SPEC,
}


class BLVNet(VideoClassifier):
    """bLVNet with the temporal module of the configuration's family: TAM, TSM or none.

    `forward(little, big)`: normalised frames, little (N, T/2, 3, S, S) and big (N, T/2, 3, B, B) with B from
    `ModelConfig.big_size` -> evidence (N, T/2, C).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        spec = BLRESNETS[config.depth]
        one, two, three, four = spec.stages
        self.moments = config.moments
        self.stem = (DualStem if config.stem is Stem.DUAL else SharedStem)(config, spec.stem)
        self.layer1 = BigLittleStage(config, spec.stem, one, stride=2)
        self.layer2 = BigLittleStage(config, one.outputs, two, stride=2)
        self.layer3 = BigLittleStage(config, two.outputs, three, stride=1)
        # Plain bottlenecks on merged features, each with a temporal module over the T/2 moments.
        self.layer4 = nn.Sequential(
            *(
                _bottleneck(
                    channels := three.outputs if index == 0 else four.outputs,
                    four,
                    stride=2 if index == 0 else 1,
                    temporal=temporal_module(config, channels, config.moments),
                )
                for index in range(four.blocks)
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(four.outputs, config.num_classes)
        initialise(self)

    def features(self, *inputs: Tensor) -> Tensor:
        """Normalised little and big frames -> (N, T/2, F)."""
        little, big = inputs
        x = self.stem(little, big)  # [N * T/2, 64, S / 4, S / 4]
        x = self.layer1(x)  # [N * T/2, 256, S / 8, S / 8]
        x = self.layer2(x)  # [N * T/2, 512, S / 16, S / 16]
        x = self.layer3(x)  # [N * T/2, 1024, S / 16, S / 16]
        x = self.layer4(x)  # [N * T/2, 2048, S / 32, S / 32]
        # Not adaptive_avg_pool2d, which the exporter writes as index arithmetic.
        return x.mean(dim=(2, 3)).unflatten(0, (-1, self.moments))  # type: ignore[no-any-return]


class BigLittleStem(nn.Module):
    """The common part of both stems: the first convolution, and the branches up to the first merge."""

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
        """Features of both branches after the first TAM -> merged features at S / 4."""
        big = self.bn_b0(self.b_conv0(big))
        little = self.relu(self.bn_l0(self.l_conv0(little)))
        little = self.relu(self.bn_l1(self.l_conv1(little)))
        little = self.bn_l2(self.l_conv2(little))
        merged = self.relu(big + little)
        return self.relu(self.bn_bl_init(self.bl_init(merged)))  # type: ignore[no-any-return]


class SharedStem(BigLittleStem):
    """Both inputs at S x S; the temporal module covers all T frames."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(config, channels, big_stride=2)
        self.tam = temporal_module(config, channels, config.frames)

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """Two inputs (N, T/2, 3, S, S) -> (N * T/2, C, S / 4, S / 4)."""
        x = _channels_last(torch.stack((little, big), dim=2).flatten(0, 2))  # [N * T, 3, S, S], in order
        x = self.relu(self.bn1(self.conv1(x)))
        return self.merge(*self.tam.split(x))


class DualStem(BigLittleStem):
    """Little input at S x S, big input at half of that; each with its own statistics and TAM."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(config, channels, big_stride=1)
        self.big_bn1 = nn.BatchNorm2d(channels)
        self.tam = temporal_module(config, channels, config.moments)
        self.big_tam = temporal_module(config, channels, config.moments)

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """(N, T/2, 3, S, S) and (N, T/2, 3, S / 2, S / 2) -> (N * T/2, C, S / 4, S / 4)."""
        little = self.relu(self.bn1(self.conv1(_channels_last(little.flatten(0, 1)))))
        big = self.relu(self.big_bn1(self.conv1(_channels_last(big.flatten(0, 1)))))
        return self.merge(self.tam(little), self.big_tam(big))


class BigLittleStage(nn.Module):
    """A stage (figure 2 of the paper): TAM, deep branch at half resolution, shallow branch, merge, one block.

    (N * T/2, inputs, H, W) merged features -> (N * T/2, outputs, H / stride, W / stride).
    """

    def __init__(self, config: ModelConfig, inputs: int, stage: StageSpec, stride: int) -> None:
        super().__init__()
        shallow = StageSpec(
            blocks=max(1, stage.blocks // config.beta - 1),
            width=stage.width // config.alpha,
            outputs=stage.outputs // config.alpha,
        )
        deep = StageSpec(stage.blocks - 1, stage.width, stage.outputs)
        self.tam = temporal_module(config, inputs, config.frames)
        self.big = _branch(inputs, deep, stride=2, last_relu=False)
        self.little = _branch(inputs, shallow, stride=1, last_relu=True)
        self.little_e = nn.Sequential(
            nn.Conv2d(shallow.outputs, stage.outputs, 1, bias=False), nn.BatchNorm2d(stage.outputs)
        )
        self.enlarge = EnlargeLike()
        self.relu = nn.ReLU(inplace=True)
        self.fusion = _branch(stage.outputs, StageSpec(1, stage.width, stage.outputs), stride, last_relu=True)

    def forward(self, merged: Tensor) -> Tensor:
        """The merged features after this stage."""
        little, big = self.tam.split_merged(merged)
        little = self.little_e(self.little(little))
        big = self.enlarge(self.big(big), little)
        return self.fusion(self.relu(big + little))  # type: ignore[no-any-return]


class EnlargeLike(nn.Module):
    """Enlarge the big branch's maps to the size of the little branch's, by the nearest pixel.

    The small map of an odd side H has side (H + 1) / 2. The nearest pixel of row i is then floor(i / 2), as
    in a map twice the size, which is cut to H.
    """

    def forward(self, small: Tensor, like: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C', H, W) -> (N, C, H, W); also with a time axis before the spatial ones."""
        *time, height, width = like.shape[2:]
        doubled = self.twofold(small, time)
        if doubled.shape[2:] == like.shape[2:]:
            return doubled
        return doubled[..., :height, :width]

    def twofold(self, x: Tensor, time: list[int]) -> Tensor:
        """(N, C, [T,] h, w) -> (N, C, [T,] 2 h, 2 w)."""
        return F.interpolate(x, size=[*time, 2 * x.shape[-2], 2 * x.shape[-1]])


def _branch(inputs: int, stage: StageSpec, stride: int, last_relu: bool) -> nn.Sequential:
    """Bottlenecks in sequence; the first has the stride, the last may leave its ReLU to the caller."""
    first = _bottleneck(inputs, stage, stride)
    rest = (
        _bottleneck(stage.outputs, stage, 1, last_relu=last_relu or index < stage.blocks - 1)
        for index in range(1, stage.blocks)
    )
    return nn.Sequential(first, *rest)


def _bottleneck(
    inputs: int, stage: StageSpec, stride: int, *, last_relu: bool = True, temporal: nn.Module | None = None
) -> Bottleneck:
    """A block whose shortcut pools if it has a stride, and projects if the channels change."""
    shortcut: list[nn.Module] = []
    if stride != 1:
        shortcut.append(nn.AvgPool2d(3, stride=stride, padding=1))
    if inputs != stage.outputs:
        shortcut += [nn.Conv2d(inputs, stage.outputs, 1, bias=False), nn.BatchNorm2d(stage.outputs)]
    return Bottleneck(
        inputs,
        stage.width,
        stage.outputs,
        stride=stride,
        shortcut=nn.Sequential(*shortcut) if shortcut else None,
        temporal=temporal,
        aggregated_shortcut=True,
        last_relu=last_relu,
    )


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)

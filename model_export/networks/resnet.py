"""ResNets on all frames: TSN (no temporal module), TSM and TAM in every residual block; and I3D in 3D.

He et al., arXiv 1512.03385, as torchvision builds it (stride in the 3 x 3 convolution). The layout is that
of the published TAM-ResNet and I3D-ResNet checkpoints (IBM/action-recognition-pytorch), without temporal
pooling, so all T frames reach the classifier.

- TSN: Wang et al., arXiv 1608.00859.
- TSM: Lin et al., arXiv 1811.08383; the shift is in the residual branch of every block.
- TAM-ResNet: Fan et al., arXiv 1912.00869, section 4.3.
- I3D-ResNet: the 3 x 3 kernels of the blocks are 3 x 3 x 3, conv1 is 3 x 7 x 7; time is never strided.
- TAM-I3D-ResNet: the TAM stands before the first convolution of each block, as in TAM-ResNet. In a
  bottleneck that convolution is 1 x 1 x 1 and covers one frame; after a TAM it mixes channels of
  neighbouring frames at r weights a channel. After the 3 x 3 x 3 convolution, a TAM could only repeat what
  that kernel already expresses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_export.networks.config import MINI, ModelConfig
from model_export.networks.residual import (
    MINI_SPEC,
    BackboneSpec,
    BasicBlock,
    Bottleneck,
    Dimensions,
    StageSpec,
    VideoClassifier,
    convolution,
    initialise,
    normalisation,
    resnet_spec,
)
from model_export.networks.temporal import NoTemporalModule, temporal_module

RESNETS: dict[str, BackboneSpec] = {
    "18": resnet_spec((2, 2, 2, 2), expansion=1),
    "34": resnet_spec((3, 4, 6, 3), expansion=1),
    "50": resnet_spec((3, 4, 6, 3)),
    "101": resnet_spec((3, 4, 23, 3)),
    "152": resnet_spec((3, 8, 36, 3)),
    MINI: MINI_SPEC,
}


class FrameResNet(VideoClassifier):
    """TSN-, TSM- and TAM-ResNet: a 2D ResNet on every frame, with the family's temporal module in each block.

    `forward(frames)`: normalised frames (N, T, 3, S, S) -> evidence (N, T, C).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        spec = RESNETS[config.depth]
        self.frames = config.frames
        self.conv1 = nn.Conv2d(3, spec.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = _layers(config, spec, dimensions=2)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(spec.stages[-1].outputs, config.num_classes)
        initialise(self)

    def features(self, *inputs: Tensor) -> Tensor:
        """Normalised frames (N, T, 3, S, S) -> (N, T, F)."""
        (frames,) = inputs
        x = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # [N * T, 3, S, S]
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [N * T, 64, S / 4, S / 4]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [N * T, F, S / 32, S / 32]
        # Not adaptive_avg_pool2d, which the exporter writes as index arithmetic.
        return x.mean(dim=(2, 3)).unflatten(0, (-1, self.frames))  # type: ignore[no-any-return]


class I3DResNet(VideoClassifier):
    """I3D-ResNet: a ResNet whose 3 x 3 kernels are 3 x 3 x 3; TAM-I3D-ResNet with a TAM in each block.

    `forward(frames)`: normalised frames (N, T, 3, S, S) -> evidence (N, T, C).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        spec = RESNETS[config.depth]
        self.conv1 = nn.Conv3d(3, spec.stem, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(spec.stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1, self.layer2, self.layer3, self.layer4 = _layers(config, spec, dimensions=3)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(spec.stages[-1].outputs, config.num_classes)
        initialise(self)

    def features(self, *inputs: Tensor) -> Tensor:
        """Normalised frames (N, T, 3, S, S) -> (N, T, F)."""
        (frames,) = inputs
        x = frames.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)  # [N, 3, T, S, S]
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [N, 64, T, S / 4, S / 4]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [N, F, T, S / 32, S / 32]
        return x.mean(dim=(3, 4)).transpose(1, 2)  # type: ignore[no-any-return]


def _layers(config: ModelConfig, spec: BackboneSpec, dimensions: Dimensions) -> list[nn.Sequential]:
    """The four stages; all but the first start with stride 2."""
    inputs = spec.stem
    layers = []
    for level, stage in enumerate(spec.stages):
        blocks = []
        for index in range(stage.blocks):
            stride = 2 if level > 0 and index == 0 else 1
            blocks.append(_block(config, inputs, stage, stride, dimensions))
            inputs = stage.outputs
        layers.append(nn.Sequential(*blocks))
    return layers


def _block(
    config: ModelConfig, inputs: int, stage: StageSpec, stride: int, dimensions: Dimensions
) -> BasicBlock | Bottleneck:
    shortcut = None
    if stride != 1 or inputs != stage.outputs:
        shortcut = nn.Sequential(
            convolution(inputs, stage.outputs, 1, stride, dimensions),
            normalisation(stage.outputs, dimensions),
        )
    temporal: nn.Module | None = temporal_module(config, inputs, config.frames)
    if isinstance(temporal, NoTemporalModule):
        temporal = None
    if stage.outputs == stage.width:
        return BasicBlock(
            inputs, stage.width, stride=stride, shortcut=shortcut, temporal=temporal, dimensions=dimensions
        )
    return Bottleneck(
        inputs,
        stage.width,
        stage.outputs,
        stride=stride,
        shortcut=shortcut,
        temporal=temporal,
        dimensions=dimensions,
    )

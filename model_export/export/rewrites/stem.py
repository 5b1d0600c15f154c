"""The stem of a big-little network in the graph variants.

In `FramewiseStem`, every frame is a separate tensor up to the first merge. Feature maps are largest there
(S / 2 squared, for all T frames) and arithmetic is light, so moving memory costs more than convolving.
Runtimes keep convolutions in a blocked layout, but a tensor with all frames in its batch axis has to leave
that layout for the TAM and come back: six passes over all maps. Frames in separate tensors never leave it:
each tap is a 1 x 1 depthwise convolution of one frame, to which the runtime adds the next tap's, and a
frame's maps are still in the cache when they are needed again.

After the merge, maps are 8 times smaller, and convolutions are faster on more frames at a time. Kernels that
keep channels last, or time as an axis, do so from the first layer and use `BatchedStem`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.export.rewrites.constant_tam import constant_taps
from model_export.export.rewrites.fold import PixelConvolution, fold
from model_export.networks.blvnet import DualStem, SharedStem
from model_export.networks.temporal import NoTemporalModule, TemporalModule

REPLACED = ("conv1", "bn1", "big_bn1", "tam", "big_tam")


class FramewiseStem(nn.Module):
    """A stem on uint8 inputs (N, T/2, 3, H, W) -> merged features (N * T/2, C, h, w), frame by frame.

    Removes modules from `stem`. The normalisations after conv1 are folded here, as the frames share its
    weights.
    """

    def __init__(self, stem: SharedStem | DualStem) -> None:
        super().__init__()
        self.shared = isinstance(stem, SharedStem)
        self.little_conv = self.big_conv = PixelConvolution(fold(stem.conv1, stem.bn1))
        self.tam = self.big_tam = FrameTaps(stem.tam)
        if isinstance(stem, DualStem):
            self.big_conv = PixelConvolution(fold(stem.conv1, stem.big_bn1))
            self.big_tam = FrameTaps(stem.big_tam)
        for name in REPLACED:
            if hasattr(stem, name):
                delattr(stem, name)
        self.stem = stem  # the branches and their merge

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """See the class."""
        evens = [F.relu(self.little_conv(frame)) for frame in _frames(little)]
        odds = [F.relu(self.big_conv(frame)) for frame in _frames(big)]
        if self.shared:
            mixed = self.tam([frame for pair in zip(evens, odds, strict=True) for frame in pair])
            evens, odds = mixed[0::2], mixed[1::2]
        else:
            evens, odds = self.tam(evens), self.big_tam(odds)
        merged = [self.stem.merge(even, odd) for even, odd in zip(evens, odds, strict=True)]
        return torch.cat(merged, dim=1).reshape(-1, *merged[0].shape[1:])


class BatchedStem(nn.Module):
    """A stem on all frames of an input at once, with other first convolutions.

    Args:
        stem: its temporal modules and the layers after them, in the variant's form.
        little_conv: the first convolution of the little input, on uint8 (N, T/2, H, W, 3).
        big_conv: the first convolution of the big input.
    """

    def __init__(self, stem: SharedStem | DualStem, little_conv: nn.Module, big_conv: nn.Module) -> None:
        super().__init__()
        self.little_conv, self.big_conv = little_conv, big_conv
        self.stem = stem

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """Two uint8 inputs (N, T/2, H, W, 3) -> merged features in the layout of the stem's modules."""
        if isinstance(self.stem, SharedStem):
            frames = torch.stack((little, big), dim=2).flatten(1, 2)  # [N, T, H, W, 3], in order
            evens, odds = self.stem.tam.split(F.relu(self.little_conv(frames)))
        else:
            evens = self.stem.tam(F.relu(self.little_conv(little)))
            odds = self.stem.big_tam(F.relu(self.big_conv(big)))
        return self.stem.merge(evens, odds)


class FrameTaps(nn.Module):
    """A temporal module over frames in separate tensors."""

    def __init__(self, module: TemporalModule) -> None:
        super().__init__()
        self.taps = nn.ParameterList()
        if not isinstance(module, NoTemporalModule):
            taps, self.relu = constant_taps(module)
            weights = [tap.reshape(-1, 1, 1, 1).clone() for tap in taps]  # r of [C, 1, 1, 1]
            self.taps.extend(nn.Parameter(weight, requires_grad=False) for weight in weights)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """T frames (N, C, H, W) -> T frames; frames beyond the ends are zero."""
        if not self.taps:
            return frames
        results = []
        for moment in range(len(frames)):
            start = moment - len(self.taps) // 2
            terms = [
                F.conv2d(frames[start + j], weight, groups=len(weight))
                for j, weight in enumerate(self.taps)
                if 0 <= start + j < len(frames)
            ]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            results.append(F.relu(total) if self.relu else total)
        return results


def _frames(stacked: Tensor) -> list[Tensor]:
    """(N, T, ...) -> T tensors (N, ...), by slices, as the exporter writes an index as a gather."""
    return [stacked[:, t : t + 1].flatten(0, 1) for t in range(stacked.shape[1])]

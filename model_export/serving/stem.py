"""The stem of a big-little network in the serving graph.

`FramewiseStem` works on one frame at a time, up to the first merge. Here feature maps are largest (S / 2
squared, for all T frames) and arithmetic is light, so moving memory costs more than convolving. Runtimes keep
convolutions in a blocked layout, but a tensor with all frames in its batch axis has to leave that layout for
the TAM to look across frames, and come back: six passes over all maps. Frames that are tensors of their own
never leave it: each tap is a 1 x 1 depthwise convolution of one frame, added to the next tap's by the runtime
as it goes, and a frame's maps still lie in cache when they are needed again. That saves onnxruntime copies of
its largest tensors.

Behind the merge maps are 8 times smaller, and convolutions gain from more frames at a time. So do, from the
start, kernels that keep channels last or time as an axis: for those there is `StreamedStem`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.blvnet import DualStem, SharedStem
from model_export.networks.temporal import TemporalAggregation
from model_export.serving.normalisation import fold
from model_export.serving.pixels import PixelConvolution

# Convolutions between the first TAM and the merge, and the normalisations behind them.
BRANCHES = {
    "b_conv0": "bn_b0",
    "l_conv0": "bn_l0",
    "l_conv1": "bn_l1",
    "l_conv2": "bn_l2",
    "bl_init": "bn_bl_init",
}
TAKEN_OUT = {"conv1", "bn1", "big_bn1", "tam", "big_tam"}


class FramewiseStem(nn.Module):
    """A stem, which is taken apart, on uint8 streams (N, T/2, 3, H, W) -> merged features (N * T/2, C, h, w).

    Normalisations are folded here, so that the frames share their weights.
    """

    def __init__(self, stem: SharedStem | DualStem) -> None:
        super().__init__()
        self.shared = isinstance(stem, SharedStem)
        self.little_conv = self.big_conv = PixelConvolution(fold(stem.conv1, stem.bn1))
        self.tam = self.big_tam = FrameTaps(stem.tam)
        if isinstance(stem, DualStem):
            self.big_conv = PixelConvolution(fold(stem.conv1, stem.big_bn1))
            self.big_tam = FrameTaps(stem.big_tam)
        fold_branches(stem)
        for name in TAKEN_OUT & {child for child, _ in stem.named_children()}:
            delattr(stem, name)
        self.stem = stem  # what is left of it: the branches and their merge

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


class StreamedStem(nn.Module):
    """A stem on all frames of a stream at once, with other first convolutions; its modules in any form.

    Args:
        stem: what is used of it are its temporal modules and what lies behind them.
        first: the first convolutions of the little and the big stream, which take uint8 (N, T_b, H, W, 3).
    """

    def __init__(self, stem: SharedStem | DualStem, first: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.little_conv, self.big_conv = first
        self.stem = stem

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """uint8 streams (N, T / 2, H, W, 3) -> merged features, laid out as the stem's modules have them."""
        if isinstance(self.stem, SharedStem):
            frames = torch.stack((little, big), dim=2).flatten(1, 2)  # [N, T, H, W, 3], in order
            evens, odds = self.stem.tam.split(F.relu(self.little_conv(frames)))
        else:
            evens = self.stem.tam(F.relu(self.little_conv(little)))
            odds = self.stem.big_tam(F.relu(self.big_conv(big)))
        return self.stem.merge(evens, odds)


def fold_branches(stem: SharedStem | DualStem) -> None:
    """Fold the normalisations behind the first TAM into the convolutions in front of them."""
    for convolution, norm in BRANCHES.items():
        setattr(stem, convolution, fold(getattr(stem, convolution), getattr(stem, norm)))
        setattr(stem, norm, nn.Identity())


class FrameTaps(nn.Module):
    """`TemporalAggregation` over frames that are tensors of their own; without it they stay as they are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        taps = module.taps.detach() if isinstance(module, TemporalAggregation) else ()
        weights = [tap.reshape(-1, 1, 1, 1).clone() for tap in taps]  # r of [C, 1, 1, 1]
        self.taps = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight in weights])

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """T frames (N, C, H, W) in, T frames out."""
        if not self.taps:
            return frames
        return [F.relu(self._mix(frames, moment)) for moment in range(len(frames))]

    def _mix(self, frames: list[Tensor], moment: int) -> Tensor:
        """The taps around `moment`; frames beyond the ends are zero."""
        start = moment - len(self.taps) // 2
        terms = [
            F.conv2d(frames[start + j], weight, groups=len(weight))
            for j, weight in enumerate(self.taps)
            if 0 <= start + j < len(frames)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


def _frames(stream: Tensor) -> list[Tensor]:
    """(N, T, ...) -> T tensors (N, ...), by slices, as an index would become a gather."""
    return [stream[:, t : t + 1].flatten(0, 1) for t in range(stream.shape[1])]

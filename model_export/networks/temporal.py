"""Temporal modules, by which the frames of a clip exchange information: TAM and temporal shift.

Temporal *Aggregation* Module: Fan et al., "More Is Less", NeurIPS 2019, arXiv 1912.00869, section 3.2. With r
taps, one weight per channel and tap, and zeros beyond the ends of the clip,

    y[t] = relu(sum_j w_j * x[t + j]),   j = -h .. h,   h = (r - 1) / 2.

Folded taps
-----------
After a big-little merge, frames 2i and 2i + 1 both have the merged features b[i], so the input sequence of
the next TAM is x[s] = b[floor(s / 2)]. Insert that:

    little[i] = y[2i]     = relu(sum_j w_j * b[i + floor(j / 2)])
    big[i]    = y[2i + 1] = relu(sum_j w_j * b[i + floor((j + 1) / 2)])

and add up the taps that apply to the same b[i + d]:

    little: u_d = sum of w_j with floor(j / 2) = d          big: v_d = sum of w_j with floor((j + 1) / 2) = d

For r = 3, w = (p, c, n): u = (p, c + n) at d = (-1, 0) and v = (p + c, n) at d = (0, 1). The zeros at the
ends agree too: s lies in 0 .. T - 1 exactly when floor(s / 2) lies in 0 .. T/2 - 1. So the doubled sequence
is never built, in training or in the exported graph. This holds for any odd r; `fold_matrix` has the sums as
a matrix.

Layout
------
Frames are in the batch axis, (N * T, C, H, W), with channels last. The same memory is a channels-last
(N, C, T, H * W) image, so a TAM is one depthwise convolution with an r x 1 kernel on a view: no shifted
copies, no padding, and a third to half of the time of weighted sums of slices (both directions, float32 and
bfloat16, on a CPU). 3D networks have (N, C, T, H, W), and (N, C, T, H * W) is a view of that too.
"""

from __future__ import annotations

import math
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.config import Family, ModelConfig

SHIFTED_PART = 8  # an eighth of the channels shifts each way, as in TSM
TAP_NOISE = 0.05  # standard deviation of the noise on initial taps


class TamInit(StrEnum):
    """Initial taps of a temporal aggregation module."""

    SHIFT = "shift"  # near a temporal shift, see `initial_taps`
    PAPER = "paper"  # every tap from N(0, 2 / C), as in the authors' code


class TemporalAggregation(nn.Module):
    """TAM (paper section 3.2): a depthwise convolution over time, and a ReLU.

    Args:
        channels: C.
        frames: T, the length of the sequences that `forward` and `split` take; `split_merged` takes T/2.
        taps: r, any odd number.
        relu: False leaves the ReLU out, to express other temporal operators by their taps (TSM).

    The parameter `taps` is (r, C): row h applies to the frame itself, rows above it to earlier frames, rows
    below it to later ones. It starts as `initial_taps`.
    """

    def __init__(self, channels: int, frames: int, taps: int = 3, *, relu: bool = True) -> None:
        super().__init__()
        self.frames = frames
        self.relu = relu
        self.taps = nn.Parameter(initial_taps(channels, taps))

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T, C, H, W); also (N, C, T, H, W) -> (N, C, T, H, W)."""
        if x.dim() == 5:
            y = self._filter(x.flatten(3), self.taps)  # [N, C, T, H * W]
            return self._activate(y.reshape(x.shape))
        return self._activate(self._filter_batch(x, self.frames, self.taps))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N * T, C, H, W), in order -> even and odd frames, (N * T/2, C, H, W) each.

        A convolution with stride 2 in time gives the even frames; with one more tap of zeros in front, the
        odd ones.
        """
        delayed = F.pad(self.taps, (0, 0, 1, 0))
        half = self.taps.shape[0] // 2
        little = self._filter_batch(x, self.frames, self.taps, stride=2, padding=half)
        big = self._filter_batch(x, self.frames, delayed, stride=2, padding=half)
        return self._activate(little), self._activate(big)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features (N * T/2, C, H, W) -> even and odd frames of the doubled sequence."""
        moments = self.frames // 2
        little, big = fold_taps(self.taps)
        return (
            self._activate(self._filter_batch(merged, moments, little)),
            self._activate(self._filter_batch(merged, moments, big)),
        )

    def _filter_batch(
        self, x: Tensor, frames: int, taps: Tensor, stride: int = 1, padding: int | None = None
    ) -> Tensor:
        """Depthwise convolution over time of frames in the batch axis."""
        _, channels, height, width = x.shape
        y = x.permute(0, 2, 3, 1).reshape(-1, frames, height * width, channels)  # a view when channels last
        y = self._filter(y.permute(0, 3, 1, 2), taps, stride, padding)  # [N, C, T', H * W]
        return y.permute(0, 2, 3, 1).reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def _filter(x: Tensor, taps: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """Depthwise convolution of (N, C, T, P) along T with taps (k, C)."""
        length, channels = taps.shape
        weight = taps.t().reshape(channels, 1, length, 1)
        before = length // 2 if padding is None else padding
        return F.conv2d(x, weight, stride=(stride, 1), padding=(before, 0), groups=channels)

    def _activate(self, y: Tensor) -> Tensor:
        return F.relu_(y) if self.relu else y


class TemporalShift(nn.Module):
    """TSM (Lin et al., ICCV 2019, arXiv 1811.08383), bidirectional: shift an eighth of the channels each way.

    The first C // 8 channels come from the next frame, the following C // 8 from the previous one, the others
    stay; zeros come in at the ends. It has no parameters. Its methods take and return the same as those of
    `TemporalAggregation`.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.channels = channels
        self.shifted = channels // SHIFTED_PART

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T, C, H, W)."""
        ahead, back, rest = self._parts(x, self.frames)
        return torch.cat((_from_next(ahead), _from_previous(back), rest), dim=2).flatten(0, 1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames -> even and odd frames after the shift."""
        y = self(x)
        return y[0::2], y[1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features -> even and odd frames of the doubled sequence, without building it.

        The frame after 2i and the frame before 2i + 1 are of the same pair. So only the channels from the
        previous frame move in the even frames, and only those from the next frame in the odd ones.
        """
        ahead, back, rest = self._parts(merged, self.frames // 2)
        little = torch.cat((ahead, _from_previous(back), rest), dim=2)
        big = torch.cat((_from_next(ahead), back, rest), dim=2)
        return little.flatten(0, 1), big.flatten(0, 1)

    def _parts(self, x: Tensor, frames: int) -> tuple[Tensor, ...]:
        """Channels that come from the next frame, from the previous one, and the rest; (N, T, c, H, W)."""
        clips = x.reshape(-1, frames, *x.shape[1:])
        return clips.tensor_split((self.shifted, 2 * self.shifted), dim=2)


class NoTemporalModule(nn.Module):
    """Networks without a temporal module: frames are split between the branches, unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the frames."""
        return x

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd frames of (N * T, C, H, W)."""
        return x[0::2], x[1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches take the merged features."""
        return merged, merged


TemporalModule = TemporalAggregation | TemporalShift | NoTemporalModule


def temporal_module(config: ModelConfig, channels: int, frames: int) -> TemporalModule:
    """The temporal module of the configuration's family, for sequences of `frames`."""
    match config.family:
        case Family.BLVNET_TAM | Family.TAM_RESNET | Family.TAM_I3D_RESNET:
            return TemporalAggregation(channels, frames, config.taps)
        case Family.BLVNET_TSM | Family.TSM_RESNET:
            return TemporalShift(channels, frames)
        case _:
            return NoTemporalModule()


def shift_taps(channels: int) -> Tensor:
    """`TemporalShift` as the fixed 0/1 taps (3, C) of a `TemporalAggregation` without ReLU."""
    shifted = channels // SHIFTED_PART
    taps = torch.zeros(3, channels)
    taps[2, :shifted] = 1.0
    taps[0, shifted : 2 * shifted] = 1.0
    taps[1, 2 * shifted :] = 1.0
    return taps


def initial_taps(channels: int, taps: int) -> Tensor:
    """Taps (r, C) near a temporal shift, with noise on every tap; near the identity if r is 1.

    The authors' taps (`TamInit.PAPER`) suit a network that starts from ImageNet weights. From scratch they
    would mix frames at random and shrink the features before the first step, and a pure identity would hide
    the order of frames until the taps have grown.
    """
    start = torch.randn(taps, channels) * TAP_NOISE
    middle = taps // 2
    if taps == 1:
        return start + 1.0
    start[middle - 1 : middle + 2] += shift_taps(channels)
    return start


def initialise_taps(network: nn.Module, init: TamInit) -> None:
    """Set the taps of a fresh network, which start as in `TamInit.SHIFT`."""
    if init is TamInit.PAPER:
        for module in network.modules():
            if isinstance(module, TemporalAggregation):
                nn.init.normal_(module.taps, 0.0, math.sqrt(2.0 / module.taps.shape[1]))


def fold_taps(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Taps (r, C) on the doubled sequence -> little and big taps (2m + 1, C) on the merged one.

    Both are centred, m = ceil(h / 2), so each has a row of zeros at one end unless h is even.
    """
    little, big = fold_matrix(taps.shape[0]).to(taps.device, taps.dtype).unbind()
    return little @ taps, big @ taps


def fold_matrix(taps: int) -> Tensor:
    """(2, 2m + 1, r) of zeros and ones: which taps w_j add up at offset d, for little (0) and big (1)."""
    half = taps // 2
    reach = (half + 1) // 2
    matrix = torch.zeros(2, 2 * reach + 1, taps)
    for branch in (0, 1):
        for j in range(-half, half + 1):
            matrix[branch, (j + branch) // 2 + reach, j + half] = 1.0
    return matrix


def _from_next(clips: Tensor) -> Tensor:
    """(N, T, C, H, W): each frame replaced by the next, zeros at the end."""
    return F.pad(clips[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))


def _from_previous(clips: Tensor) -> Tensor:
    """(N, T, C, H, W): each frame replaced by the previous one, zeros at the start."""
    return F.pad(clips[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))

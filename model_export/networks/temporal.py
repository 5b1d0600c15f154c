"""Temporal aggregation (TAM) and temporal shift: how frames of a clip exchange information.

Temporal *Aggregation* Module: Fan et al., "More Is Less", NeurIPS 2019, arXiv 1912.00869, section 3.2. With r
taps, one weight per channel and tap, and zeros beyond the ends of the clip,

    y[t] = relu(sum_j w_j * x[t + j]),   j = -h .. h,   h = (r - 1) / 2.

Folded taps
-----------
After a big-little merge frames 2i and 2i + 1 both carry the merged features b[i], so the sequence that the
next TAM sees is x[s] = b[floor(s / 2)]. Put that in:

    little[i] = y[2i]     = relu(sum_j w_j * b[i + floor(j / 2)])
    big[i]    = y[2i + 1] = relu(sum_j w_j * b[i + floor((j + 1) / 2)])

and collect the taps that meet the same b[i + d]:

    little: u_d = sum of w_j with floor(j / 2) = d          big: v_d = sum of w_j with floor((j + 1) / 2) = d

For r = 3, w = (p, c, n): u = (p, c + n) at d = (-1, 0) and v = (p + c, n) at d = (0, 1). Zeros agree too: s
lies in 0 .. T - 1 exactly when floor(s / 2) lies in 0 .. T/2 - 1. So the doubled sequence is never built,
in training or in the exported graph. It holds for any odd r; `fold_matrix` is the collection as a matrix.

Layout
------
Frames travel in the batch axis, (N * T, C, H, W), channels last. There the same memory is a channels-last
(N, C, T, H * W) image, so a TAM is one depthwise convolution with an r x 1 kernel on a view: no shifted
copies, no padding, and half to a third of the time of weighted sums of slices (both directions, float32 and
bfloat16, on a CPU). 3D networks carry (N, C, T, H, W), of which (N, C, T, H * W) is a view as well.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHIFTED_PART = 8  # an eighth of the channels looks back, another eighth looks ahead (TSM's proportion)


class TwoStream(Protocol):
    """What a big-little stage wants of a temporal module: the little and the big branch's frames."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N * T, C, H, W), frames in order -> even frames, odd frames; each (N * T/2, C, H, W)."""
        ...

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features (N * T/2, C, H, W), standing for both frames of a pair -> even, odd frames."""
        ...


class TemporalAggregation(nn.Module):
    """TAM (paper section 3.2): a depthwise convolution over time and a ReLU.

    Args:
        channels: C.
        frames: T, the length of the sequence that `forward` and `split` see; `split_merged` sees T/2.
        taps: r, any odd number.
        relu: leave the ReLU out to express other temporal operators by their taps (TSM).

    Parameters are `taps` (r, C): row h is the frame itself, rows above look back, rows below look ahead.

    Weights start near a shift: the frame itself with weight 1, but in an eighth of the channels the frame
    before and in another eighth the frame after, plus a little noise on every tap. The authors draw every
    tap from N(0, 2 / C), which is fine behind an ImageNet initialisation; from scratch it would mix frames
    blindly and shrink the features before the first step, and a pure identity would leave the network blind
    to the order of frames until the taps have grown.
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
        return self._activate(self._over_batch(x, self.frames, self.taps))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate over all T frames, even ones for the little branch and odd ones for the big branch.

        A convolution with stride 2 in time gives the even frames; behind a leading zero tap, the odd ones.
        """
        delayed = F.pad(self.taps, (0, 0, 1, 0))
        half = self.taps.shape[0] // 2
        little = self._over_batch(x, self.frames, self.taps, stride=2, padding=half)
        big = self._over_batch(x, self.frames, delayed, stride=2, padding=half)
        return self._activate(little), self._activate(big)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """The same on the doubled sequence of merged features (N * T/2, C, H, W), by folded taps."""
        moments = self.frames // 2
        little, big = fold_taps(self.taps)
        return (
            self._activate(self._over_batch(merged, moments, little)),
            self._activate(self._over_batch(merged, moments, big)),
        )

    def _over_batch(
        self, x: Tensor, frames: int, taps: Tensor, stride: int = 1, padding: int | None = None
    ) -> Tensor:
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


class NoAggregation(nn.Module):
    """bLVNet without TAM: frames are split between the branches and exchange nothing."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd frames of (N * T, C, H, W)."""
        return x[0::2], x[1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches see the merged features."""
        return merged, merged


class TemporalShift(nn.Module):
    """TSM (Lin et al., ICCV 2019, arXiv 1811.08383), bidirectional: shift an eighth of the channels each way.

    The first C // 8 channels come from the next frame, the following C // 8 from the previous one, the others
    stay; zeros come in at the ends. (N * T, C, H, W) -> (N * T, C, H, W). No parameters.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.channels = channels
        self.fold = channels // SHIFTED_PART

    def forward(self, x: Tensor) -> Tensor:
        """Shift in time; see the class."""
        clips = x.reshape(-1, self.frames, *x.shape[1:])  # [N, T, C, H, W]
        ahead, back, rest = clips.tensor_split((self.fold, 2 * self.fold), dim=2)
        from_next = F.pad(ahead[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
        from_previous = F.pad(back[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat((from_next, from_previous, rest), dim=2).flatten(0, 1)


def shift_taps(channels: int) -> Tensor:
    """`TemporalShift` as the fixed 0/1 taps (3, C) of a `TemporalAggregation` without ReLU."""
    fold = channels // SHIFTED_PART
    taps = torch.zeros(3, channels)
    taps[2, :fold] = 1.0
    taps[0, fold : 2 * fold] = 1.0
    taps[1, 2 * fold :] = 1.0
    return taps


def initial_taps(channels: int, taps: int, noise: float = 0.05) -> Tensor:
    """Taps (r, C) near a shift, see `TemporalAggregation`; with one tap, near the identity."""
    start = torch.randn(taps, channels) * noise
    middle = taps // 2
    if taps == 1:
        return start + 1.0
    start[middle - 1 : middle + 2] += shift_taps(channels)
    return start


def fold_taps(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Taps (r, C) on the doubled sequence -> little and big taps (2m + 1, C) on the merged one (module docs).

    Both are centred, m = ceil(h / 2), so each has a structural zero at one end unless h is even.
    """
    little, big = fold_matrix(taps.shape[0]).to(taps.device, taps.dtype).unbind()
    return little @ taps, big @ taps


def fold_matrix(taps: int) -> Tensor:
    """(2, 2m + 1, r) of zeros and ones: which taps w_j meet at which offset d, for little (0) and big (1)."""
    half = taps // 2
    reach = (half + 1) // 2
    matrix = torch.zeros(2, 2 * reach + 1, taps)
    for branch in (0, 1):
        for j in range(-half, half + 1):
            matrix[branch, (j + branch) // 2 + reach, j + half] = 1.0
    return matrix

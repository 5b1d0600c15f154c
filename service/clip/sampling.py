"""Frame indices of clips. Pure functions on integers; frames count from 0.

Both rules return exactly T indices for every video with at least one frame. Integer arithmetic gives the same
indices on every machine, whereas `floor(n / T * (k + 0.5))` in floats is sometimes off by one.
"""

from __future__ import annotations

from bisect import bisect_left

from service.clip.spec import ClipSpec, Sampling

Indices = tuple[tuple[int, ...], ...]
"""The frame numbers of each clip."""


def sample_indices(spec: ClipSpec, frame_count: int, clips: int = 1) -> tuple[tuple[int, ...], ...]:
    """Return the T indices of each of `clips` clips, according to the spec.

    Raises:
        ValueError: `frame_count` or `clips` is below 1.
    """
    match spec.sampling:
        case Sampling.UNIFORM:
            return tuple(uniform_indices(frame_count, spec.frames, clip, clips) for clip in range(clips))
        case Sampling.DENSE:
            return tuple(
                dense_indices(frame_count, spec.frames, spec.stride, clip, clips) for clip in range(clips)
            )


def uniform_indices(frame_count: int, frames: int, clip: int = 0, clips: int = 1) -> tuple[int, ...]:
    """One frame of each of T equal segments: `floor(n/T * (k + phase))`, k = 0..T-1.

    Clip c of C uses `phase = (c + 1/2) / C`: a single clip uses the middle of each segment, and several clips
    divide each segment evenly. Videos with fewer than T frames repeat frames.

    Raises:
        ValueError: there are no frames, or the clip does not exist.
    """
    _check(frame_count, frames, clip, clips)
    return tuple(frame_count * (2 * clips * k + 2 * clip + 1) // (2 * clips * frames) for k in range(frames))


def dense_indices(
    frame_count: int, frames: int, stride: int, clip: int = 0, clips: int = 1
) -> tuple[int, ...]:
    """T frames at a fixed stride, spanning `frames * stride` frames, as in the Kinetics evaluation.

    The starts of C clips are evenly spaced between the first frame and the last possible start; a single clip
    is centred. Indices beyond the end wrap to the beginning, as in the authors' code; their networks were
    trained on short videos in this way.

    Raises:
        ValueError: there are no frames, the clip does not exist, or `stride` is below 1.
    """
    _check(frame_count, frames, clip, clips)
    if stride < 1:
        raise ValueError(f"stride must be at least 1, not {stride}")
    last_start = max(0, frame_count - frames * stride)
    start = last_start // 2 if clips == 1 else last_start * clip // (clips - 1)
    return tuple((start + k * stride) % frame_count for k in range(frames))


def _check(frame_count: int, frames: int, clip: int, clips: int) -> None:
    if frame_count < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frames of {frame_count}")
    if not 0 <= clip < clips:
        raise ValueError(f"there is no clip {clip} of {clips}")


def replace_damaged(
    indices: tuple[tuple[int, ...], ...], frame_count: int, damaged: frozenset[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the indices with each damaged frame replaced by the nearest intact one, the earlier in a tie."""
    if not damaged:
        return indices
    undamaged = [index for index in range(frame_count) if index not in damaged]

    def nearest(index: int) -> int:
        after = bisect_left(undamaged, index)
        return min(undamaged[max(0, after - 1) : after + 1], key=lambda other: abs(other - index))

    return tuple(tuple(nearest(index) for index in sampled) for sampled in indices)

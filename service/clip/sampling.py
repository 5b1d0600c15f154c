"""Which frames of a video a clip is made of. Pure functions on integers; frames count from 0.

Both rules give exactly T indices for every video of at least one frame, and the same ones on every
machine: the arithmetic is in integers, where `floor(n / T * (k + 0.5))` in floats would now and then
land one frame early.
"""

from __future__ import annotations

from service.clip.spec import ClipSpec, Sampling


def sample_indices(spec: ClipSpec, frame_count: int, clips: int = 1) -> tuple[tuple[int, ...], ...]:
    """The T indices of each of `clips` temporal clips, by the spec's rule.

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
    """One frame from each of T equal segments: `floor(n/T * (k + phase))`, k = 0..T-1.

    Clip c of C takes `phase = (c + 1/2) / C`, so one clip takes the middles of the segments and several
    share each segment out evenly. A video shorter than T repeats frames.

    Raises:
        ValueError: there is no frame to take, or no such clip.
    """
    _check(frame_count, frames, clip, clips)
    return tuple(frame_count * (2 * clips * k + 2 * clip + 1) // (2 * clips * frames) for k in range(frames))


def dense_indices(
    frame_count: int, frames: int, stride: int, clip: int = 0, clips: int = 1
) -> tuple[int, ...]:
    """T frames at a fixed stride: the window of `frames * stride` frames of the Kinetics evaluation.

    The starts of C windows are spread evenly from the first frame to the last at which a window still
    fits; a single window is centred. An index past the end wraps round to the beginning, as in the
    authors' code: their networks were trained on short videos wrapped that way, so holding the last
    frame instead would show them something new.

    Raises:
        ValueError: there is no frame to take, no such clip, or `stride` is below 1.
    """
    _check(frame_count, frames, clip, clips)
    if stride < 1:
        raise ValueError(f"stride must be at least 1, it is {stride}")
    last_start = max(0, frame_count - frames * stride)
    start = last_start // 2 if clips == 1 else last_start * clip // (clips - 1)
    return tuple((start + k * stride) % frame_count for k in range(frames))


def _check(frame_count: int, frames: int, clip: int, clips: int) -> None:
    if frame_count < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frames of {frame_count}")
    if not 0 <= clip < clips:
        raise ValueError(f"there is no clip {clip} of {clips}")

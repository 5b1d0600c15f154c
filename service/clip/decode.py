"""A video file in, uint8 frames at the network's sizes out, with what was found and what was taken.

    source ──> list the packets ──> indices ──> plan ──> decode what the wanted frames depend on ──> inputs
                      │                                       │
                      │ they do not tell                      │ other frames come than were foretold
                      v                                       v
               decode every frame in the order of the file, scale the wanted ones ──> inputs
                                         │    ^
                                         v    │ indices anew, if other frames decode than were counted
                                         └────┘

Either way the pixels are those of a decoder that was fed every packet. What a header says of frames and
duration is never believed. Nothing but the packets and the wanted frames, scaled and cropped, stays in
memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.bitstream.coded import Unplannable
from service.clip.container import OpenVideo, Source, open_video, opened
from service.clip.full import FirstFrame, Pass, decode_all
from service.clip.geometry import CROP_COUNTS
from service.clip.packets import Listing, ReadAgain, list_packets
from service.clip.plan import Run, Table
from service.clip.running import Lane, decode_in_order, decode_shared
from service.clip.sampling import sample_indices
from service.clip.spec import ClipSpec
from service.clip.thinning import thin
from service.clip.threads import spread
from service.clip.timing import Timing, frame_timing
from service.clip.video import DecodeLimits, VideoInfo
from service.clip.views import Take, Views, aside
from service.errors import InvalidParameter, Undecodable

# The packets tell the number of frames of every sound file. A pass that finds another number, or damage in a
# wanted frame, corrects it; should the third disagree again, the file does not decode to the same frames
# twice.
MAX_PASSES = 3


@dataclass(frozen=True)
class Effort:
    """What it took to decode a clip.

    Attributes:
        packets: Packets of the video.
        decoded: How many were given to a decoder, in the pass that gave the frames.
        full_because: Why all of them had to be; None if a plan held.
    """

    packets: int
    decoded: int
    full_because: str | None = None


@dataclass(frozen=True)
class DecodedClip:
    """Frames ready for the graph, and where they come from.

    Attributes:
        inputs: Input name -> uint8 `(V, T_branch, size, size, 3)` RGB; V = clips * crops views, the crops of
            the first clip first.
        video: What the file is.
        indices: For each temporal clip the T frames taken, counted from 0 in the order of showing.
        timestamps_s: Their times in seconds from the first frame of the video.
        effort: What it took.
    """

    inputs: dict[str, NDArray[np.uint8]]
    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]
    effort: Effort


@dataclass(frozen=True)
class _Wish:
    """What the caller asked for."""

    spec: ClipSpec
    limits: DecodeLimits
    clips: int
    crops: int
    only: int | None
    cores: int
    out: Mapping[str, NDArray[np.uint8]] | None

    def indices(self, frame_count: int) -> tuple[tuple[int, ...], ...]:
        """The frames to take, of each temporal clip."""
        taken = sample_indices(self.spec, frame_count, self.clips)
        return taken if self.only is None else (taken[self.only],)

    def views(self, indices: tuple[tuple[int, ...], ...]) -> Views:
        """A place for the frames with these numbers."""
        return Views(self.spec, indices, self.crops, self.out)


def decode_clip(
    source: Source,
    spec: ClipSpec,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    *,
    clips: int = 1,
    crops: int = 1,
    only: int | None = None,
    threads: int = 1,
    out: Mapping[str, NDArray[np.uint8]] | None = None,
) -> DecodedClip:
    """Decode the frames that `spec` asks of a video, `clips` times over time and `crops` times over space.

    `only` is the one of the `clips` to decode, if not all of them; the others' frames are not even scaled.
    `source` is a path, the file's bytes, or a seekable binary file, which is read from its beginning and
    left open. `threads` are the cores that decoding may keep busy; how, is decided by what is to be decoded.
    `out` are arrays of the shapes of `DecodedClip.inputs` to put the frames into, such as shared memory.

    Raises:
        NotAVideo: no container that we take, or no video stream in it.
        Undecodable: a video, but no frame can be had from it.
        OverLimit: past one of `limits`.
        InvalidParameter: `clips` is below 1, `crops` not 1, 3, 5 or 10, or `only` not one of the clips.
        OSError: a path that cannot be opened.
    """
    if clips < 1:
        raise InvalidParameter("clips must be at least 1")
    if crops not in CROP_COUNTS:
        raise InvalidParameter("crops must be 1, 3, 5 or 10")
    if only is not None and not 0 <= only < clips:
        raise InvalidParameter(f"there is no clip {only} of {clips}")
    wish = _Wish(spec, limits, clips, crops, only, threads, out)
    with opened(source) as file:
        outcome = _attempt(file, wish)
        return outcome if isinstance(outcome, DecodedClip) else _decode_fully(file, outcome, wish)


@dataclass(frozen=True)
class _NoPlan:
    """What is known when all has to be decoded: why, and the packets' word for frames and their size."""

    because: str
    frames: int
    pixels: int


def _attempt(file: BinaryIO, wish: _Wish) -> DecodedClip | _NoPlan:
    """Decode by a plan, if one can be made and holds."""
    with open_video(file, wish.limits, peek=False) as video:
        listing = list_packets(video, wish.limits)
        if listing.table is None:
            return _NoPlan(listing.problem, listing.frames, listing.pixels)
        try:
            return _decode_planned(file, video, listing, listing.table, wish)
        except Unplannable as exc:
            return _NoPlan(str(exc), listing.frames, listing.pixels)


def _decode_planned(
    file: BinaryIO, video: OpenVideo, listing: Listing, table: Table, wish: _Wish
) -> DecodedClip:
    """Decode no more than the wanted frames depend on, and the first, which tells what the video is.

    Raises:
        Unplannable: other frames come than the packets foretell.
    """
    indices = wish.indices(len(table.frames))
    views = wish.views(indices)
    found: list[FirstFrame] = []

    def take(number: int, frame: VideoFrame) -> None:
        if number == 0:
            found.append(FirstFrame.of(frame))
        views.take(number, frame)

    runs, packets = thin(table.plan(views.wanted | {0}), table, listing)
    wish.limits.check_decoded_pixels(listing.pixels * sum(len(run.packets) for run in runs))
    with _lanes(file, video, listing, table, runs, wish, views, take) as lanes:
        if packets and len(lanes) > 1:
            decode_shared(runs, lanes, packets)
        elif packets:
            decode_in_order(runs, lanes[0], packets)
        else:
            with open_video(file, wish.limits, peek=False) as again:
                decode_in_order(runs, lanes[0], ReadAgain(again))
    timing = frame_timing(table.timestamps, video.time_base, video.stated_rate)
    effort = Effort(len(table.rows), sum(len(run.packets) for run in runs))
    return _clip(views, indices, video_info(video, found[0], timing), timing, effort)


@contextmanager
def _lanes(
    file: BinaryIO,
    video: OpenVideo,
    listing: Listing,
    table: Table,
    runs: Sequence[Run],
    wish: _Wish,
    views: Views,
    take: Take,
) -> Iterator[list[Lane]]:
    """The decoders for a plan's runs: that of `video`, and others of the same file where they help."""
    costs = [run.cost for run in runs]
    shared = listing.packets is not None and listing.independent
    scaled = views.scalings / sum(len(run.packets) for run in runs)
    chosen = spread(wish.cores, listing.pixels, costs if shared else [sum(costs)], video.codec, scaled)
    numbers = {pts: number for number, pts in enumerate(table.timestamps)}
    with ExitStack() as stack:
        # All are opened before any decodes: they share the file's position.
        lanes = chosen.lanes if shared else 1
        others = [open_video(file, wish.limits, peek=False) for _ in range(lanes - 1)]
        videos = [video, *(stack.enter_context(other) for other in others)]
        for each in videos:
            each.use_threads(chosen.threads)
        if chosen.aside:
            take = stack.enter_context(aside(take))
        yield [Lane(each, numbers, take) for each in videos]


def _decode_fully(file: BinaryIO, known: _NoPlan, wish: _Wish) -> DecodedClip:
    """Decode every packet.

    A wanted frame that is damaged gives its place to the nearest that is not, the earlier of two.

    Raises:
        Undecodable: no frame is whole, or fewer are than packets are broken.
    """
    wish.limits.check_decoded_pixels(known.pixels * known.frames)
    threads = spread(wish.cores, known.pixels, [1], "", 0.0).threads
    frame_count, damaged = known.frames, frozenset[int]()
    for _ in range(MAX_PASSES):
        indices = undamaged(wish.indices(frame_count), frame_count, damaged)
        views = wish.views(indices)
        found = decode_all(file, wish.limits, threads, views.take)
        if found.frames == frame_count and not views.wanted & found.damaged:
            video = video_info(found, found.first, found.timing, found.broken_packets)
            return _clip(
                views, indices, video, found.timing, Effort(found.packets, found.packets, known.because)
            )
        frame_count, damaged = found.frames, found.damaged
    raise Undecodable("the video decodes to other frames each time")


def undamaged(
    indices: tuple[tuple[int, ...], ...], frames: int, damaged: frozenset[int]
) -> tuple[tuple[int, ...], ...]:
    """The indices, those of damaged frames replaced by the nearest of the others, the earlier of two."""
    if not damaged:
        return indices
    whole = [index for index in range(frames) if index not in damaged]

    def nearest(index: int) -> int:
        after = bisect_left(whole, index)
        return min(whole[max(0, after - 1) : after + 1], key=lambda other: abs(other - index))

    return tuple(tuple(nearest(index) for index in taken) for taken in indices)


def video_info(
    video: OpenVideo | Pass, first: FirstFrame, timing: Timing, broken_packets: int = 0
) -> VideoInfo:
    """What was found of a video, in one."""
    return VideoInfo(
        container=video.container,
        codec=video.codec,
        width=first.width,
        height=first.height,
        rotation=first.rotation,
        frames=len(timing.times_s),
        fps=timing.fps,
        duration_s=timing.duration_s,
        broken_packets=broken_packets,
    )


def _clip(
    views: Views, indices: tuple[tuple[int, ...], ...], video: VideoInfo, timing: Timing, effort: Effort
) -> DecodedClip:
    timestamps_s = tuple(tuple(timing.times_s[index] for index in taken) for taken in indices)
    return DecodedClip(views.inputs, video, indices, timestamps_s, effort)

"""Decode the frames that a network samples from a video, scaled and cropped to its inputs.

    source ──> scan the packets ──> sample ──> plan ──> decode what the sampled frames depend on ──> inputs
                      │                                       │
                      │ the packets do not tell the frames    │ other frames than planned appear
                      v                                       v
               decode every packet in file order, scale the sampled frames ──> inputs
                                         │    ^
                                         v    │ sample again if another number of frames decodes
                                         └────┘

Both ways give the pixels of a decoder that is fed every packet. Frame counts and durations in headers are
never trusted. Only the packets and the sampled frames, scaled and cropped, stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.clip.bitstream.packet_info import Unplannable
from service.clip.decoding.container import OpenVideo, Source, open_video, opened
from service.clip.decoding.packets import PacketScan, SecondPass, scan_packets
from service.clip.decoding.parallelism import choose_parallelism
from service.clip.decoding.plan import PacketRun
from service.clip.decoding.planned import PlannedDecoder, decode_parallel, decode_serial
from service.clip.decoding.pruning import prune_runs
from service.clip.decoding.sequential import FirstFrame, decode_all
from service.clip.sampling import Indices, replace_damaged
from service.clip.spec import ClipSpec
from service.clip.timing import Timing
from service.clip.video import DecodedVideo, DecodeLimits, Effort, VideoInfo
from service.clip.views import Take, ViewPlan, Views, in_own_thread
from service.errors import Undecodable

# The scan counts the frames of every intact file correctly. A pass that finds a different number, or a
# damaged sampled frame, corrects the count; if a third pass disagrees again, the video never decodes to the
# same frames twice.
MAX_PASSES = 3


@dataclass(frozen=True)
class _ClipsRequest:
    """The arguments of `decode_video`."""

    file: BinaryIO
    spec: ClipSpec
    limits: DecodeLimits
    plan: ViewPlan
    cores: int
    out: Mapping[str, NDArray[np.uint8]] | None

    def sample(self, frame_count: int) -> Indices:
        """Return the frame numbers of each clip."""
        return self.plan.sample(self.spec, frame_count)

    def views(self, indices: Indices) -> Views:
        """Return the views to fill with the sampled frames."""
        return self.plan.views(self.spec, indices, self.out)


def decode_video(
    source: Source,
    spec: ClipSpec,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    *,
    clips: int = 1,
    crops: int = 1,
    only: int | None = None,
    plan: ViewPlan | None = None,
    threads: int = 1,
    out: Mapping[str, NDArray[np.uint8]] | None = None,
) -> DecodedVideo:
    """Decode `clips` temporal clips of a video with `crops` crops each.

    Args:
        source: A path, the file's bytes, or a seekable binary file, which is read from its start and left
            open.
        spec: Inputs of the network, and how frames are sampled.
        limits: Limits on the video.
        clips: Number of temporal clips.
        crops: Crops of each clip: 1, 3, 5 or 10.
        only: Number of the only clip to decode; by default all are.
        plan: Chooses frames and crops instead of `clips`, `crops` and `only`.
        threads: Number of cores that decoding may keep busy.
        out: Arrays to fill, such as shared memory, of the shapes of `DecodedVideo.inputs`.

    Raises:
        NotAVideo: The container is not accepted, or holds no video track.
        Undecodable: The file is a video, but no frame can be decoded.
        OverLimit: The video exceeds one of `limits`.
        InvalidParameter: `clips`, `crops` or `only` is out of range.
        OSError: The path cannot be opened.
    """
    plan = ViewPlan(clips, crops, only) if plan is None else plan
    with opened(source) as file:
        request = _ClipsRequest(file, spec, limits, plan, threads, out)
        with open_video(file, limits, peek=False) as video:
            scan = scan_packets(video, limits)
            try:
                return _decode_planned(request, video, scan)
            except Unplannable as exc:
                reason = str(exc)
        scan = replace(scan, packets=None, index=None)  # frees memory for the passes that follow
        return _decode_fully(request, scan, video.codec, reason)


def _decode_planned(request: _ClipsRequest, video: OpenVideo, scan: PacketScan) -> DecodedVideo:
    """Decode only what the sampled frames depend on, and the first frame, which describes the video.

    Raises:
        Unplannable: There is no plan, or the decoder returns other frames than planned.
    """
    if scan.index is None:
        raise Unplannable(scan.problem)
    indices = request.sample(len(scan.index.frames))
    views = request.views(indices)
    first = FirstFrame(views.take)
    runs, packets = prune_runs(scan.index.plan(views.wanted | {0}), scan.index, scan)
    decoded = sum(len(run.packets) for run in runs)
    request.limits.check_decoded_pixels(scan.pixels * decoded)
    with _decoders(request, video, scan, runs, views.scalings / decoded, first.take) as decoders:
        if packets and len(decoders) > 1:
            decode_parallel(runs, decoders, packets)
        elif packets:
            decode_serial(runs, decoders[0], packets)
        else:
            with open_video(request.file, request.limits, peek=False) as again:
                decode_serial(runs, decoders[0], SecondPass(again))
    timing = video.times.timing(scan.index.timestamps)
    effort = Effort(len(scan.index.entries), decoded)
    return _result(views, indices, first.describe(video, timing), timing, effort)


@contextmanager
def _decoders(
    request: _ClipsRequest,
    video: OpenVideo,
    scan: PacketScan,
    runs: Sequence[PacketRun],
    scalings: float,
    take: Take,
) -> Iterator[list[PlannedDecoder]]:
    """Provide the decoders for the runs: that of `video`, and more for the same file if they help."""
    assert scan.index is not None
    costs = [run.cost for run in runs]
    parallel = scan.packets is not None and scan.independent
    chosen = choose_parallelism(
        request.cores, scan.pixels, costs if parallel else [sum(costs)], video.codec, scalings
    )
    with ExitStack() as stack:
        # All videos are opened before any decodes: they share the position in the file.
        count = chosen.decoders if parallel else 1
        others = [open_video(request.file, request.limits, peek=False) for _ in range(count - 1)]
        videos = [video, *(stack.enter_context(other) for other in others)]
        for each in videos:
            each.use_threads(chosen.threads)
        if chosen.scaling_thread:
            take = stack.enter_context(in_own_thread(take))
        yield [PlannedDecoder(each, scan.index, take) for each in videos]


def _decode_fully(request: _ClipsRequest, scan: PacketScan, codec: str, reason: str) -> DecodedVideo:
    """Decode every packet. A damaged frame is replaced with the nearest intact one, the earlier in a tie.

    Raises:
        Undecodable: No frame is intact, or more packets are broken than frames are intact.
    """
    request.limits.check_decoded_pixels(scan.pixels * scan.frames)
    threads = choose_parallelism(request.cores, scan.pixels, [1], codec, 0.0).threads
    frame_count, damaged = scan.frames, frozenset[int]()
    for _ in range(MAX_PASSES):
        indices = replace_damaged(request.sample(frame_count), frame_count, damaged)
        views = request.views(indices)
        result = decode_all(request.file, request.limits, threads, views.take)
        if result.video.frames == frame_count and not views.wanted & result.damaged:
            effort = Effort(result.packets, result.packets, reason)
            return _result(views, indices, result.video, result.timing, effort)
        frame_count, damaged = result.video.frames, result.damaged
        threads = 1  # a decoder with frame threads may drop intact frames near damage without an error
    raise Undecodable("the video decodes to different frames each time")


def _result(views: Views, indices: Indices, video: VideoInfo, timing: Timing, effort: Effort) -> DecodedVideo:
    times = tuple(tuple(timing.times_s[index] for index in sampled) for sampled in indices)
    return DecodedVideo(inputs=views.inputs, video=video, indices=indices, timestamps_s=times, effort=effort)

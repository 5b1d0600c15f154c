"""Decode the runs of a plan with one or more decoders, and check every frame against the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event

from service.clip.bitstream.packet_info import Unplannable
from service.clip.decoding.container import OpenVideo
from service.clip.decoding.packets import Packet, Packets
from service.clip.decoding.plan import PacketIndex, PacketRun
from service.clip.views import Take


class PlannedDecoder:
    """A decoder that works through runs of packets and accepts only the expected frames.

    A missing, extra, damaged or misordered frame means that the packets do not decode as their headers say,
    and makes the whole plan invalid.

    Args:
        video: The open video to decode with.
        index: The packets of the video.
        take: Receives each frame. With several decoders it is called from several threads.
    """

    def __init__(self, video: OpenVideo, index: PacketIndex, take: Take) -> None:
        self._video = video
        self._numbers = index.numbers
        self._take = take
        self._expected: deque[int] = deque()
        self._started = False
        if index.undeclared_depth is not None:
            video.set_reorder_depth(index.undeclared_depth)

    def start(self, run: PacketRun) -> None:
        """Prepare for the packets of `run`."""
        if run.reset and self._started:
            self.finish()
            self._video.reset()
        self._started = True
        self._expected.extend(run.expected)

    def feed(self, packet: Packet | None) -> None:
        """Decode a packet; None drains the decoder.

        Raises:
            Unplannable: A frame is not the expected one.
            OverLimit: A frame has too many pixels, or all frames together have.
            Undecodable: Memory is exhausted, or the pixel format cannot be converted.
        """
        frames = self._video.decode(packet)
        if self._video.broken_packets:
            raise Unplannable("a packet does not decode")
        for frame in frames:
            if frame.is_corrupt:
                raise Unplannable("a frame is damaged")
            if not self._expected or frame.pts != self._expected.popleft():
                raise Unplannable("the decoder returned other frames than planned")
            self._take(self._numbers[frame.pts], frame)

    def finish(self) -> None:
        """Take the frames that the decoder still holds back.

        Raises:
            Unplannable: As `feed`, or an expected frame is missing.
        """
        self.feed(None)
        if self._expected:
            raise Unplannable("the decoder returned fewer frames than planned")


def decode_serial(runs: Sequence[PacketRun], decoder: PlannedDecoder, packets: Packets) -> None:
    """Decode all runs with one decoder."""
    for run in runs:
        decoder.start(run)
        for number in run.packets:
            decoder.feed(packets[number])
    decoder.finish()


def decode_parallel(runs: Sequence[PacketRun], decoders: Sequence[PlannedDecoder], packets: Packets) -> None:
    """Decode the runs with several decoders, the most costly first."""
    waiting = deque(sorted(runs, key=lambda run: run.cost, reverse=True))
    stop = Event()

    def work(decoder: PlannedDecoder) -> None:
        while waiting and not stop.is_set():
            run = waiting.popleft()
            decoder.start(run)
            for number in run.packets:
                if stop.is_set():
                    return
                decoder.feed(packets[number])
        decoder.finish()

    with ThreadPoolExecutor(len(decoders)) as pool:
        futures = [pool.submit(work, decoder) for decoder in decoders]
        wait(futures, return_when=FIRST_EXCEPTION)
        stop.set()
        for future in futures:
            future.result()

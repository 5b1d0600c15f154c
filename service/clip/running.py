"""Decodes the runs of a plan, on one decoder or several, and holds them to what the plan foretold."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from service.clip.bitstream.coded import Unplannable
from service.clip.container import OpenVideo
from service.clip.packets import Packet
from service.clip.plan import Run
from service.clip.thinning import Packets
from service.clip.views import Take


class Lane:
    """One decoder that works off runs, one after the other.

    Nothing but what was foretold may come out: a frame too few, too many, damaged or out of order means that
    the packets say other than they hold, and the plan is void.

    Args:
        video: where to decode.
        numbers: timestamp -> number of the frame.
        take: what becomes of a frame; with several lanes it is called from several threads.
    """

    def __init__(self, video: OpenVideo, numbers: Mapping[int, int], take: Take) -> None:
        self._video = video
        self._numbers = numbers
        self._take = take
        self._expected: deque[int] = deque()
        self._began = False

    def begin(self, run: Run) -> None:
        """Get ready for the run's packets."""
        if run.reset and self._began:
            self.finish()
            self._video.reset()
        self._began = True
        self._expected.extend(run.expected)

    def feed(self, packet: Packet | None) -> None:
        """Decode a packet; None: that was the last.

        Raises:
            Unplannable: what comes out is not what was foretold.
            OverLimit: a frame of too many pixels, or too many in all.
            Undecodable: no memory left, or a pixel format that cannot be converted.
        """
        frames = self._video.decode(packet)
        if self._video.broken_packets:
            raise Unplannable("packets that do not decode")
        for frame in frames:
            if frame.is_corrupt:
                raise Unplannable("damaged frames")
            if not self._expected or frame.pts != self._expected.popleft():
                raise Unplannable("other frames than the packets foretell")
            self._take(self._numbers[frame.pts], frame)

    def finish(self) -> None:
        """Take the frames that the decoder still holds back."""
        self.feed(None)
        if self._expected:
            raise Unplannable("fewer frames than the packets foretell")


def decode_in_order(runs: Sequence[Run], lane: Lane, packets: Packets) -> None:
    """Decode all runs on one decoder."""
    for run in runs:
        lane.begin(run)
        for number in run.packets:
            lane.feed(packets[number])
    lane.finish()


def decode_shared(runs: Sequence[Run], lanes: Sequence[Lane], packets: Packets) -> None:
    """Decode the runs on several decoders at once, each taking the most costly that is left."""
    waiting = deque(sorted(runs, key=lambda run: run.cost, reverse=True))
    stop = Event()

    def work(lane: Lane) -> None:
        try:
            while waiting and not stop.is_set():
                run = waiting.popleft()
                lane.begin(run)
                for number in run.packets:
                    if stop.is_set():
                        return
                    lane.feed(packets[number])
            lane.finish()
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(lanes)) as pool:
        for outcome in [pool.submit(work, lane) for lane in lanes]:
            outcome.result()

"""Coverage-guided fuzzing of the Python readers in `service.clip.bitstream`.

`python -m tests.fuzz.readers [libFuzzer options]`, such as `-max_total_time=60`. FFmpeg is not instrumented,
so coverage cannot guide whole videos; those are fuzzed by `tests.fuzz.clips`.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
from itertools import islice
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service.clip.bitstream"]):
    from service.clip.bitstream.packet_info import Unplannable
    from service.clip.bitstream.readers import reader_for

from service.clip.decoding.container import open_video
from service.clip.video import DecodeLimits
from tests.fuzz.seeds import seeds

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "mjpeg", "prores", "mpeg1video", "ffv1")
MAX_PACKETS = 8
READERS_MB = 2000  # limit including FFmpeg, which creates the seeds


def read_packets(data: bytes) -> None:
    """Read a stream given as codec, header and packets; any error but a rejection is a bug."""
    source = io.BytesIO(data)
    codec = CODECS[_number(source, 1) % len(CODECS)]
    try:
        reader = reader_for(codec, source.read(_number(source, 2)))
        packets: list[tuple[int, memoryview]] = []
        for number in range(MAX_PACKETS):
            packet = memoryview(source.read(_number(source, 2)))
            if not packet:
                break
            reader.read(packet)
            packets.append((number, packet))
        reader.reorder_depth()
        if pruner := reader.pruner():
            needed = pruner.prune(packets, {*range(0, len(packets), 3)})
            for number, packet in packets:
                if rewrite := needed.get(number):
                    rewrite(packet)
    except Unplannable:
        pass


def _number(source: io.BytesIO, size: int) -> int:
    return int.from_bytes(source.read(size))


def packets_of(clip: bytes) -> bytes | None:
    """The first packets of a valid video in the format of `read_packets`, or None without a reader."""
    with open_video(io.BytesIO(clip), DecodeLimits(), peek=False) as video:
        codec, header = video.codec, video.header
        if codec not in CODECS:
            return None
        packets = [bytes(packet)[:2000] for packet in islice(video.packets(), MAX_PACKETS)]
    parts = [bytes([CODECS.index(codec)]), len(header).to_bytes(2), header]
    for packet in packets:
        parts += [len(packet).to_bytes(2), packet]
    return b"".join(parts)


def main() -> None:
    """Start libFuzzer, which ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(seeds()):
            if packets := packets_of(clip):
                Path(folder, str(number)).write_bytes(packets)
        # libFuzzer checks the peak memory, which a process inherits from its parent.
        inherited_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        limits = ["-timeout=5", "-max_len=8000", f"-rss_limit_mb={inherited_mb + READERS_MB}"]
        atheris.Setup([*sys.argv, *limits, folder], read_packets)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Opens an untrusted file as a video. All that FFmpeg is allowed to do with an upload is decided here.

The list of formats and codecs is closed, FFmpeg can open nothing but the file object that it is given
(no path, no name to guess from, no protocol, no nested file), and sizes are checked before the first
frame is decoded. Limits on memory and time are the worker process's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Never

import av
import av.container
from av.codec.context import ThreadType
from av.stream import Discard, Disposition

from service.clip.video import DecodeLimits
from service.errors import NotAVideo, OverLimit, Undecodable

Source = Path | str | bytes | BinaryIO

# FFmpeg's demuxers for what people upload: mp4, mov and their kin; Matroska and WebM; AVI; MPEG transport
# and program streams; FLV; Ogg; ASF, which is WMV; what cameras and editors write (MXF, DV); moving pictures
# (GIF, APNG); streams in next to no container (y4m, IVF, OBU, H.264, HEVC, MPEG-1, 2 and 4). Not here are,
# above all, the formats that name other files (hls, dash, concat, sdp, image2) or make pictures of text (tty,
# xbin), and `mjpeg`, to which every photograph would be a video.
FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "mxf", "dv", "gif", "apng",
    "yuv4mpegpipe", "ivf", "obu", "h264", "hevc", "mpegvideo", "m4v",
)  # fmt: skip

# Those of them that carry no times: FFmpeg makes some up, others from pass to pass, and not always even ones.
UNTIMED = frozenset({"obu", "h264", "hevc", "mpegvideo", "m4v"})

# Decoders by FFmpeg's name -> the codec's name for callers. Short on purpose: each is code that runs on
# hostile bytes. vvc is out for CVE-2026-125244, magicyuv for CVE-2026-8461, the rest for lack of uploads that
# need them.
CODECS = {
    "h264": "h264",
    "hevc": "hevc",
    "vp8": "vp8",
    "vp9": "vp9",
    "libdav1d": "av1",
    "av1": "av1",
    "mpeg1video": "mpeg1video",
    "mpeg2video": "mpeg2video",
    "mpeg4": "mpeg4",
    "msmpeg4v1": "msmpeg4v1",
    "msmpeg4v2": "msmpeg4v2",
    "msmpeg4": "msmpeg4v3",
    "wmv1": "wmv1",
    "wmv2": "wmv2",
    "wmv3": "wmv3",
    "vc1": "vc1",
    "h263": "h263",
    "flv": "flv1",
    "theora": "theora",
    "mjpeg": "mjpeg",
    "prores": "prores",
    "dnxhd": "dnxhd",
    "dvvideo": "dvvideo",
    "ffv1": "ffv1",
    "huffyuv": "huffyuv",
    "ffvhuff": "ffvhuff",
    "utvideo": "utvideo",
    "qtrle": "qtrle",
    "png": "png",
    "rawvideo": "rawvideo",
    "v210": "v210",
    "gif": "gif",
    "apng": "apng",
}

# What an mp4 or mov may begin with.
ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
# How others of `FORMATS` begin: EBML, FLV, Ogg, GIF, MPEG program streams, ASF's header object, MXF's
# partition pack, y4m, IVF.
SIGNATURES = (
    b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"GIF8", b"\x00\x00\x01\xba",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("060e2b34020501010d010201"),
    b"YUV4MPEG2 ", b"DKIF",
)  # fmt: skip

# A bit of the first byte of a VP8 frame (RFC 6386, section 9.1).
VP8_SHOW_FRAME = 0x10

# An edit list behind its size: `elst`, version (0 or 1), flags, number of entries; ISO/IEC 14496-12, 8.6.6.
# It begins with a word, which is looked for at the speed of memory; anything before that makes it 40 times
# slower, which in a file of 1080p is a tenth of all that decoding takes.
EDIT_LIST = re.compile(rb"elst([\x00\x01]).{3}(.{4})", re.DOTALL)
BOX_SIZE_BYTES = 4
EDIT_LIST_BYTES = 16  # with its size
EDIT_BYTES = {0: 12, 1: 20}

HEAD_BYTES = 4096
CHUNK_BYTES = 2**20


@dataclass
class OpenVideo:
    """The video stream of an open container, to be read once: not every format can go back.

    `broken_packets` counts those that the decoder refused so far, `decoded_pixels` what it gave.
    """

    container: str
    codec: str
    width: int
    height: int
    header: bytes
    time_base: Fraction
    stated_rate: Fraction | None
    _input: av.container.InputContainer
    _stream: av.VideoStream
    _limits: DecodeLimits
    broken_packets: int = 0
    decoded_pixels: int = 0
    cut_short: bool = False

    def packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """The stream's packets up to the end of what can be read.

        Damage in the container ends the iteration, and sets `cut_short`: the packets before it are good.
        Empty packets are left out, a decoder takes them for the end of the stream. Times that the container
        does not have are left out as well.
        """
        packets = self._input.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # The latter is PyAV's: at the end of a file it asks for every stream that there is by then,
                # and knows those only that there were at first.
                return
            except av.FFmpegError:
                self.cut_short = True
                return
            if packet.size:
                if self.container in UNTIMED:
                    packet.pts = packet.dts = None
                yield packet

    def shows_frame(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Whether `packet` is a frame of its own to a viewer, as far as can be told without decoding.

        Not one that an edit list cuts off, nor a VP8 frame that is only there for others to refer to; such
        frames need decoding all the same. VP9 and AV1 keep theirs in the packet of a shown one.
        """
        if packet.is_discard:
            return False
        return self.codec != "vp8" or bool(memoryview(packet)[0] & VP8_SHOW_FRAME)

    def use_threads(self, threads: int) -> None:
        """Decode with so many threads; to be said before the first packet is decoded."""
        decoder = self._stream.codec_context
        decoder.thread_count = threads
        decoder.thread_type = ThreadType.FRAME if threads > 1 else ThreadType.NONE

    def decode(self, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame]:
        """The frames that `packet` completes, in the order in which they are shown; None drains the decoder.

        A damaged packet gives no frame, and decoding goes on behind it as a player would.

        Raises:
            Undecodable: the process has no memory left for the decoder.
            OverLimit: a frame of too many pixels, or too many in all.
        """
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.MemoryError as exc:
            raise Undecodable("decoding this video takes more memory than is allowed") from exc
        except av.FFmpegError as exc:
            self._check_growth(exc)
            self.broken_packets += 1
            return []
        for frame in frames:
            self._limits.check_size(frame.width, frame.height)
            self.decoded_pixels += frame.width * frame.height
        self._limits.check_decoded_pixels(self.decoded_pixels)
        return frames

    def _check_growth(self, refusal: av.FFmpegError) -> None:
        """Raise `OverLimit` if the decoder refused a packet because the picture has grown too large in it.

        Some decoders then show the new size, and some none, where the header has one: for those the value
        that is told is the least that they refuse.
        """
        decoder = self._stream.codec_context
        if decoder.width:
            self._limits.check_size(decoder.width, decoder.height)
        elif self.width and isinstance(refusal, av.error.ArgumentError):
            raise OverLimit("pixels", self._limits.padded_pixels + 1, self._limits.max_pixels)

    def reset(self) -> None:
        """Make a drained decoder ready to begin elsewhere."""
        self._stream.codec_context.flush_buffers()


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """`source` as a seekable binary file; only a file that was opened here is closed again.

    Raises:
        OSError: a path that cannot be opened.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield source


@contextmanager
def open_video(file: BinaryIO, limits: DecodeLimits, *, peek: bool = True) -> Iterator[OpenVideo]:
    """The first video stream of `file`, read from its beginning, ready to decode with one thread.

    By default FFmpeg decodes a few frames to complete what the header says. Without `peek` it does not: some
    streams are then described incompletely, but a frame of 4K, which takes a twentieth of a second, is not
    decoded twice.

    Raises:
        NotAVideo: no container that we take, or one without a video stream.
        Undecodable: a container that cannot be read (its index is lost), or a codec that we do not take.
        OverLimit: too many streams, or frames too large, by what the header says.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head[4:8] in ISO_BOXES:
        _check_edits(file, limits)
    file.seek(0)
    with _open_container(file, head, limits, peek) as container:
        if len(container.streams) > limits.max_streams:
            raise OverLimit("streams", len(container.streams), limits.max_streams)
        stream = _video_stream(container)
        _leave_out_others(container, stream)
        codec = _prepare_decoder(stream, limits)
        yield OpenVideo(
            container=_container_name(container.format.name, head),
            codec=codec,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            header=stream.codec_context.extradata or b"",
            time_base=stream.time_base or Fraction(1),
            stated_rate=stream.average_rate,
            _input=container,
            _stream=stream,
            _limits=limits,
        )


class _NamelessFile:
    """What FFmpeg gets of a file: reading and seeking, and no name to guess a format from."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _open_container(
    file: BinaryIO, head: bytes, limits: DecodeLimits, peek: bool
) -> av.container.InputContainer:
    if not head:
        raise NotAVideo("the file is empty")
    try:
        return av.open(
            _NamelessFile(file),
            mode="r",
            metadata_errors="replace",
            io_open=_refuse_nested_file,
            options=_peek_options(limits) if peek else {"codec_whitelist": "none"},
            container_options={
                "format_whitelist": ",".join(FORMATS),
                "protocol_whitelist": "none",
                # One more than is allowed: Matroska and MPEG-TS drop the rest in silence, this one shows it.
                "max_streams": str(limits.max_streams + 1),
                "probesize": str(limits.probe_bytes),
            },
        )
    except av.error.MemoryError as exc:
        # What the mov demuxer answers to max_streams, but also to a table of 2^31 entries.
        tracks = _occurrences(file, b"trak")
        if tracks > limits.max_streams:
            raise OverLimit("streams", tracks, limits.max_streams) from exc
        raise Undecodable("the video cannot be read: its header asks for too much memory") from exc
    except av.FFmpegError as exc:
        if _is_container(head):
            raise Undecodable("the video cannot be read: its index is damaged or missing") from exc
        raise NotAVideo("the file is not a video of a kind that is taken") from exc


def _peek_options(limits: DecodeLimits) -> dict[str, str]:
    """For the decoders that FFmpeg opens to look ahead: one for each stream, of any codec that it has."""
    return {"codec_whitelist": ",".join(CODECS), "max_pixels": str(limits.padded_pixels)}


def _check_edits(file: BinaryIO, limits: DecodeLimits) -> None:
    """Raise `OverLimit` for an edit list of too many entries, which FFmpeg would carry out while opening."""
    file.seek(0)
    tail = b""
    for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
        window = tail + chunk
        for match in EDIT_LIST.finditer(window):
            version, entries = match[1][0], int.from_bytes(match[2])
            size = int.from_bytes(window[max(0, match.start() - BOX_SIZE_BYTES) : match.start()])
            # Only a box whose size fits its entries is one, and not some bytes of a picture.
            if size == EDIT_LIST_BYTES + entries * EDIT_BYTES[version] and entries > limits.max_edits:
                raise OverLimit("edits", entries, limits.max_edits)
        tail = window[-EDIT_LIST_BYTES + 1 :]


def _occurrences(file: BinaryIO, word: bytes) -> int:
    """How often `word` is in the file, give or take one across two chunks."""
    file.seek(0)
    return sum(chunk.count(word) for chunk in iter(lambda: file.read(CHUNK_BYTES), b""))


def _refuse_nested_file(*_request: object) -> Never:
    # Out of PyAV it comes as it is, so it is one of ours.
    raise NotAVideo("the file refers to other files, which are not opened")


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no cover picture and no photograph."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and not _is_photograph(container, stream):
            return stream
    raise NotAVideo("the file holds no video stream")


def _is_photograph(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether a stream is an item of HEIF (ISO/IEC 23008-12), which has no time.

    It is a photograph, a tile of one, or the still that stands for an animated AVIF and comes before it.
    """
    return container.format.name.startswith("mov") and stream.frames == 1 and stream.duration is None


def _leave_out_others(container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """Packets of sound and all else are not even read where the format has them apart."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def _prepare_decoder(stream: av.VideoStream, limits: DecodeLimits) -> str:
    """Set limits before the first packet; return the codec's name."""
    decoder = stream.codec_context
    if decoder is None or decoder.name not in CODECS:
        raise Undecodable("the video's codec is not one that is decoded here")
    limits.check_size(decoder.width, decoder.height)
    # A guard on memory: the bitstream may say another size than the container. Only here does FFmpeg heed it,
    # as an option of the container it has no effect.
    decoder.options = {"max_pixels": str(limits.padded_pixels)}
    decoder.thread_count = 1
    decoder.thread_type = ThreadType.NONE
    return CODECS[decoder.name]


def _container_name(demuxer: str, head: bytes) -> str:
    """The container's everyday name; FFmpeg names the whole family (`mov,mp4,m4a,3gp,3g2,mj2`)."""
    match demuxer.split(",")[0]:
        case "mov":
            return "mov" if head[8:12] == b"qt  " or head[4:8] != b"ftyp" else "mp4"
        case "matroska":
            return "webm" if b"webm" in head[:64] else "matroska"
        case "yuv4mpegpipe":
            return "y4m"
        case name:
            return name


def _is_container(head: bytes) -> bool:
    """Whether a file that FFmpeg cannot open begins like one of `FORMATS` all the same."""
    return (
        head[4:8] in ISO_BOXES
        or head.startswith(SIGNATURES)
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (len(head) > 376 and head[0] == head[188] == head[376] == 0x47)
    )

"""Opening of untrusted files as videos. This module restricts everything that FFmpeg may do with an upload.

The lists of formats and codecs are closed. FFmpeg can only open the file object that it is given: no path, no
name to guess a format from, no protocol, no nested file. Sizes are checked before the first frame is decoded.
The worker process enforces the limits on memory and time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Never

import av
import av.container
from av.codec.context import Flags, ThreadType
from av.stream import Discard, Disposition

from service.clip.bitstream.nal import nal_units
from service.clip.bitstream.packet_info import Unplannable
from service.clip.decoding.formats import (
    CLUSTER,
    CODECS,
    FORMATS,
    STATES_DURATIONS,
    UNTIMED,
    container_name,
    is_container,
    is_encrypted,
)
from service.clip.decoding.isobmff import FIRST_BOXES, Boxes, read_boxes
from service.clip.timing import PacketTimes
from service.clip.video import DecodeLimits
from service.errors import NotAVideo, OverLimit, Undecodable

Source = Path | str | bytes | BinaryIO

# A bit of the first byte of a VP8 frame (RFC 6386, section 9.1).
VP8_SHOW_FRAME = 0x10
# NAL unit types of H.264 that belong to a picture: slices and data partitions.
H264_PICTURE_UNITS = range(1, 6)

# Enough for a few packets of a transport stream.
HEAD_BYTES = 4096

ENCRYPTED = "the video is encrypted and cannot be decoded without its key"
NO_INITIALIZATION = (
    "the file is a media segment without its initialization segment; "
    "send the initialization segment and the media segments as one file"
)


@dataclass
class OpenVideo:
    """A video track of an open container, which can be read once: not every format can seek.

    Attributes:
        container: Name of the container.
        codec: Name of the codec.
        track: Index of the track in the container.
        width: Width according to the header.
        height: Height according to the header.
        header: The codec's header as the container stores it.
        times: Times of the packets read so far.
        limits: Limits on the frames that are decoded.
        depth_is_indexed: FFmpeg derived the number of frames to hold back from the timestamps of all packets.
        broken_packets: Packets that the decoder refused so far.
        decoded_pixels: Pixels of all decoded frames so far.
        cut_short: Damage in the container ended the packets.
    """

    container: str
    codec: str
    track: int
    width: int
    height: int
    header: bytes
    times: PacketTimes
    limits: DecodeLimits
    depth_is_indexed: bool
    _input: av.container.InputContainer
    _stream: av.VideoStream
    broken_packets: int = 0
    decoded_pixels: int = 0
    cut_short: bool = False

    def packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """Yield the track's packets up to the end of the readable part.

        Damage in the container ends the iteration and sets `cut_short`; the packets before it are good. Empty
        packets are left out because a decoder takes one for the end of the stream. Timestamps that the
        container does not store are also left out.
        """
        packets = self._input.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV raises the latter at the end of a file in which streams have appeared late.
                return
            except av.FFmpegError:
                self.cut_short = True
                return
            if packet.size:
                if self.container in UNTIMED:
                    packet.pts = packet.dts = None
                self.times.add(packet.pts, packet.dts, packet.duration, shown=self.shows_frame(packet))
                yield packet

    def shows_frame(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Return whether `packet` holds a displayed frame, as far as can be told without decoding.

        Frames that an edit list cuts off are not displayed, and neither are VP8 frames that only serve as
        references; both still need decoding. VP9 and AV1 keep such frames in the packet of a shown one.
        """
        if packet.is_discard:
            return False
        return self.codec != "vp8" or bool(memoryview(packet)[0] & VP8_SHOW_FRAME)

    def use_threads(self, threads: int) -> None:
        """Decode with `threads` frame threads; call it before the first packet is decoded."""
        decoder = self._stream.codec_context
        decoder.thread_count = threads
        decoder.thread_type = ThreadType.FRAME if threads > 1 else ThreadType.NONE

    def set_reorder_depth(self, frames: int) -> None:
        """Make the decoder hold back `frames` frames to reorder them; call before the first packet."""
        decoder = self._stream.codec_context
        decoder.options = {**decoder.options, "has_b_frames": str(frames)}

    def decode(self, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame]:
        """Return the frames that `packet` completes, in display order; None drains the decoder.

        A damaged packet gives no frame, and decoding continues after it as in a player.

        Raises:
            Undecodable: The process has no memory left for the decoder.
            OverLimit: A frame has too many pixels, or all frames together have.
        """
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.MemoryError as exc:
            raise Undecodable("decoding this video takes more memory than is allowed") from exc
        except av.FFmpegError as exc:
            self._check_growth(exc)
            if packet is None or self._holds_picture(packet):
                self.broken_packets += 1
            return []
        for frame in frames:
            self.limits.check_size(frame.width, frame.height)
            self.decoded_pixels += frame.width * frame.height
        self.limits.check_decoded_pixels(self.decoded_pixels)
        return frames

    def reset(self) -> None:
        """Prepare a drained decoder to start at another packet."""
        self._stream.codec_context.flush_buffers()

    def _check_growth(self, refusal: av.FFmpegError) -> None:
        """Raise `OverLimit` if the decoder refused a packet because its picture is larger than allowed.

        Some decoders then report the new size. Others report no size although the header has one; the error
        then names the smallest size that they refuse.
        """
        decoder = self._stream.codec_context
        if decoder.width:
            self.limits.check_size(decoder.width, decoder.height)
        elif self.width and isinstance(refusal, av.error.ArgumentError):
            raise OverLimit("pixels", self.limits.padded_pixels + 1, self.limits.max_pixels)

    def _holds_picture(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Whether a packet that the decoder refused should have given a picture.

        FFmpeg refuses H.264 packets that hold only parameter sets or messages.
        """
        if self.codec != "h264":
            return True
        length_bytes = (self.header[4] & 3) + 1 if len(self.header) > 4 and self.header[0] == 1 else 0
        try:
            units = list(nal_units(memoryview(packet), length_bytes))
        except Unplannable:
            return True
        return not units or any(unit[0] & 31 in H264_PICTURE_UNITS for unit in units)


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """Provide `source` as a seekable binary file; a file that the caller opened is left open.

    Raises:
        OSError: The path cannot be opened.
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
    """Open a video track of `file`, from the start of the file, with a decoder of one thread.

    By default FFmpeg decodes a few frames to complete the header. Without `peek` it does not: some tracks are
    then described incompletely, but no frame is decoded twice (one of 4K takes 50 ms).

    Raises:
        NotAVideo: The container is not accepted, or holds no video track.
        Undecodable: The container cannot be read, is encrypted, or its codec is not accepted.
        OverLimit: The header announces too many tracks, edits or pixels.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise NotAVideo("the file is empty")
    boxes = read_boxes(file) if head[4:8] in FIRST_BOXES else None
    _check_head(head, boxes, limits)
    container = _open_container(file, head, boxes, limits, peek)
    try:
        if len(container.streams) > limits.max_streams:
            raise OverLimit("streams", len(container.streams), limits.max_streams)
        tracks = _tracks_by_preference(container)
        track = tracks[0]
        if len(tracks) > 1 and not track.frames:
            index = _first_of_several_frames(container, tracks)
            container.close()  # its packets have been read, and not every format can seek
            container = _open_container(file, head, boxes, limits, peek)
            track = container.streams.video[[other.index for other in container.streams.video].index(index)]
        for other in container.streams:
            if other.index != track.index:
                other.discard = Discard.all  # formats that store tracks separately do not even read it
        name = container_name(container.format.name, head)
        decoder = track.codec_context
        codec = _prepare_decoder(track, limits)
        rates = [track.average_rate, decoder.framerate, track.guessed_rate]
        yield OpenVideo(
            container=name,
            codec=codec,
            track=track.index,
            width=decoder.width,
            height=decoder.height,
            header=decoder.extradata or b"",
            times=PacketTimes(
                track.time_base or Fraction(1),
                # FFmpeg reports an average rate of 25 for every raw stream; the other rates are from the
                # codec's header.
                rates[1:] if name in UNTIMED else rates,
                decode_times_only=name == "avi",
                states_durations=name in STATES_DURATIONS,
                end=track.duration,
            ),
            limits=limits,
            depth_is_indexed=name in {"mp4", "mov"} and decoder.has_b_frames,
            _input=container,
            _stream=track,
        )
    finally:
        container.close()


def _check_head(head: bytes, boxes: Boxes | None, limits: DecodeLimits) -> None:
    """Reject files that FFmpeg must not open, because it applies edit lists on opening."""
    if boxes is not None:
        if boxes.edits > limits.max_edits:
            raise OverLimit("edits", boxes.edits, limits.max_edits)
        if boxes.is_encrypted:
            raise Undecodable(ENCRYPTED)
        if boxes.has_fragments and not boxes.has_header:
            raise Undecodable(NO_INITIALIZATION)
    elif head.startswith(CLUSTER):
        raise Undecodable(NO_INITIALIZATION)
    elif is_encrypted(head):
        raise Undecodable(ENCRYPTED)


class _NamelessFile:
    """A readable and seekable file without the name from which FFmpeg would guess a format."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _open_container(
    file: BinaryIO, head: bytes, boxes: Boxes | None, limits: DecodeLimits, peek: bool
) -> av.container.InputContainer:
    file.seek(0)
    # For the decoders that FFmpeg opens to look ahead: one for each track, with any codec it supports.
    peeking = {"codec_whitelist": ",".join(CODECS), "max_pixels": str(limits.padded_pixels)}
    try:
        return av.open(
            _NamelessFile(file),
            mode="r",
            metadata_errors="replace",
            io_open=_refuse_nested_file,
            options=peeking if peek else {"codec_whitelist": "none"},
            container_options={
                "format_whitelist": ",".join(FORMATS),
                "protocol_whitelist": "none",
                # Matroska and MPEG-TS silently drop tracks beyond this number; one more reveals that.
                "max_streams": str(limits.max_streams + 1),
                "probesize": str(limits.probe_bytes),
            },
        )
    except av.error.MemoryError as exc:
        # The mov demuxer's reaction to max_streams, but also to a table of 2^31 entries.
        if boxes is not None and boxes.tracks > limits.max_streams:
            raise OverLimit("streams", boxes.tracks, limits.max_streams) from exc
        raise Undecodable("the video cannot be read: its header asks for too much memory") from exc
    except av.FFmpegError as exc:
        if boxes is not None or is_container(head):
            raise Undecodable("the video cannot be read: its index is damaged or missing") from exc
        raise NotAVideo("the file is not a video of an accepted format") from exc


def _refuse_nested_file(*_request: object) -> Never:
    raise NotAVideo("the file refers to other files, which are not opened")  # PyAV passes it on unchanged


def _tracks_by_preference(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Return the video tracks, the one that a player shows first.

    Cover pictures and photographs are left out. A track of one frame, such as a thumbnail, comes after the
    others, and so does one that is not the default (in mp4: one that is disabled).
    """
    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    tracks = [
        track
        for track in container.streams.video
        if not track.disposition & still and not _is_photograph(container, track)
    ]
    if not tracks:
        raise NotAVideo("the file holds no video track")
    return sorted(
        tracks,
        key=lambda track: (track.frames == 1, not track.disposition & Disposition.default, track.index),
    )


def _is_photograph(container: av.container.InputContainer, track: av.VideoStream) -> bool:
    """Return whether a track is an item of HEIF (ISO/IEC 23008-12), which has no time.

    Such an item is a photograph, a tile of one, or the still that precedes an animated AVIF.
    """
    return container.format.name.startswith("mov") and track.frames == 1 and track.duration is None


def _first_of_several_frames(container: av.container.InputContainer, tracks: Sequence[av.VideoStream]) -> int:
    """Return the index of the first track with more than one packet, or of the first track if none has more.

    For containers that do not state the number of frames, such as Matroska.
    """
    packets = {track.index: 0 for track in tracks}
    try:
        for packet in container.demux(*tracks):
            packets[packet.stream.index] += bool(packet.size)
            if packets[tracks[0].index] > 1:
                break
    except (av.FFmpegError, IndexError):
        pass  # damage later in the file does not change the count
    return next((index for index, count in packets.items() if count > 1), tracks[0].index)


def _prepare_decoder(track: av.VideoStream, limits: DecodeLimits) -> str:
    """Set the limits before the first packet; return the codec's name."""
    decoder = track.codec_context
    if "enc_key_id" in track.metadata:  # Matroska and WebM
        raise Undecodable(ENCRYPTED)
    if decoder is None:
        raise Undecodable("the video's codec is unknown")
    if decoder.name not in CODECS:
        raise Undecodable(f"the video's codec, {decoder.codec.canonical_name}, is not supported")
    limits.check_size(decoder.width, decoder.height)
    # Limits memory, because the bitstream may state a different size than the container. FFmpeg respects the
    # option only here; as an option of the container it has no effect.
    decoder.options = {"max_pixels": str(limits.padded_pixels)}
    decoder.thread_count = 1
    decoder.thread_type = ThreadType.NONE
    # Without the flag FFmpeg rounds a left crop down to an aligned address, often to none.
    decoder.flags |= Flags.unaligned
    return CODECS[decoder.name]

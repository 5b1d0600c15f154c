"""Write H.264 coded as fields, which no available encoder does, bit by bit with raw macroblocks."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

from service.clip.bitstream.bits import BitWriter, escape
from tests.service.clip.bitstream.written import Field, written
from tests.support.clips import numbered_image

SIDE = 64  # of the square frame, in pixels
START_CODE = b"\0\0\0\1"
MAIN_PROFILE, LEVEL_4 = 77, 40
IDR, SLICE, SPS, PPS = 5, 1, 7, 8
RAW_MACROBLOCK = 25  # mb_type I_PCM in an I slice
I_SLICES = 7  # slice_type: this one and all others of the picture
BITS = 8  # of frame_num and of pic_order_cnt_lsb
GREY = 128


def field_coded_clip(frames: int, *, container: str, packet_per_field: bool, group: int = 8) -> bytes:
    """Encode numbered frames as two fields each; every third frame of a group is not a reference."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        stream = target.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.extradata = _parameters()
        frame_num = 0
        for number in range(frames):
            idr, referenced = number % group == 0, number % group % 3 != 2
            frame_num = 0 if idr else frame_num
            fields = [
                _field(number, bottom, frame_num, 2 * (number % group) + bottom, idr, referenced)
                for bottom in (False, True)
            ]
            fields[0] = (_parameters() if idr else b"") + fields[0]
            frame_num += referenced
            for which, content in enumerate(fields if packet_per_field else [b"".join(fields)]):
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts = packet.dts = 2 * number + which
                packet.is_keyframe = idr and not which
                target.mux(packet)
    return file.getvalue()


def _parameters() -> bytes:
    sps: list[Field] = [(MAIN_PROFILE, 8), (0, 8), (LEVEL_4, 8), 0, BITS - 4, 0, BITS - 4, 4, (0, 1)]
    sps += [SIDE // 16 - 1, SIDE // 32 - 1, (0, 1), (0, 1), (1, 1), (0, 1), (0, 1)]
    pps: list[Field] = [0, 0, (0, 1), (0, 1), 0, 0, 0, (0, 3), 0, 0, 0, (0, 3)]
    return _unit(0x60 | SPS, written(*sps)) + _unit(0x60 | PPS, written(*pps))


def _field(number: int, bottom: bool, frame_num: int, order: int, idr: bool, referenced: bool) -> bytes:
    kind = IDR if idr and not bottom else SLICE
    header: list[Field] = [0, I_SLICES, 0, (frame_num, BITS), (1, 1), (bottom, 1)]
    if kind == IDR:
        header.append(0)
    header.append((order, BITS))
    if kind == IDR:
        header.append((0, 2))
    elif referenced:
        header.append((0, 1))
    header.append(0)
    luma = numbered_image(number, SIDE, SIDE)[int(bottom) :: 2, :, 0]
    writer = written(*header)
    for row in range(SIDE // 32):
        for column in range(SIDE // 16):
            writer.ue(RAW_MACROBLOCK)
            writer.u(0, -writer.count % 8)
            block = luma[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            samples = np.clip(block, 1, 254).tobytes() + bytes([GREY] * 128)
            writer.u(int.from_bytes(samples), 8 * len(samples))
    return _unit((0x60 if referenced else 0) | kind, writer)


def _unit(head: int, writer: BitWriter) -> bytes:
    """The NAL unit of what was written, with its stop bit."""
    writer.u(1, 1)
    writer.u(0, -writer.count % 8)
    return START_CODE + bytes([head]) + escape(writer.value.to_bytes(writer.count // 8))

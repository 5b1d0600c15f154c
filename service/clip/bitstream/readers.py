"""Choose the packet reader of a codec."""

from __future__ import annotations

from service.clip.bitstream.h264.reader import H264Reader
from service.clip.bitstream.hevc import HevcReader
from service.clip.bitstream.intra import IntraReader, MotionJpegReader
from service.clip.bitstream.mpeg import Mpeg2Reader, Mpeg4Reader
from service.clip.bitstream.packet_info import PacketReader, Unplannable
from service.clip.bitstream.vpx_av1 import Av1Reader, Vp8Reader, Vp9Reader


def reader_for(codec: str, header: bytes) -> PacketReader:
    """Return a reader for the packets of a codec.

    Args:
        codec: Name of the codec.
        header: The stream header as stored by the container (FFmpeg's `extradata`).

    Raises:
        Unplannable: The codec has no reader, or the header cannot be read. Codecs without a reader are old
            and rare, or build each frame from the previous one (GIF).
    """
    match codec:
        case "h264":
            return H264Reader(header)
        case "hevc":
            return HevcReader(header)
        case "vp8":
            return Vp8Reader()
        case "vp9":
            return Vp9Reader()
        case "av1":
            return Av1Reader()
        case "mpeg1video" | "mpeg2video":
            return Mpeg2Reader()
        case "mpeg4":
            return Mpeg4Reader(header)
        case "mjpeg":
            return MotionJpegReader()
        case "prores" | "ffv1":
            return IntraReader()
        case _:
            raise Unplannable("packets of this codec are not read")

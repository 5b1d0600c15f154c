"""Which codec is read by what."""

from __future__ import annotations

from service.clip.bitstream.av1 import Av1Reader
from service.clip.bitstream.coded import Reader, Unplannable
from service.clip.bitstream.h264 import H264Reader
from service.clip.bitstream.hevc import HevcReader
from service.clip.bitstream.intra import IntraReader, MotionJpegReader
from service.clip.bitstream.mpeg import Mpeg2Reader, Mpeg4Reader
from service.clip.bitstream.vpx import Vp8Reader, Vp9Reader


def reader_for(codec: str, header: bytes) -> Reader:
    """The reader of a codec's packets; `header` is what the container has of the stream (`extradata`).

    Raises:
        Unplannable: there is none, or the header cannot be read. The codecs without one are old and rare, or
            make each frame from the one before (gif).
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
            raise Unplannable("a codec whose packets are not read")

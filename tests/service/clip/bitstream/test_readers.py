from __future__ import annotations

import pytest

from service.clip.bitstream.h264.reader import H264Reader
from service.clip.bitstream.hevc import HevcReader
from service.clip.bitstream.intra import IntraReader, MotionJpegReader
from service.clip.bitstream.mpeg import Mpeg2Reader, Mpeg4Reader
from service.clip.bitstream.packet_info import Unplannable
from service.clip.bitstream.readers import reader_for
from service.clip.bitstream.vpx_av1 import Av1Reader, Vp8Reader, Vp9Reader
from service.clip.decoding.formats import CODECS

READERS = {
    "h264": H264Reader,
    "hevc": HevcReader,
    "vp8": Vp8Reader,
    "vp9": Vp9Reader,
    "av1": Av1Reader,
    "mpeg1video": Mpeg2Reader,
    "mpeg2video": Mpeg2Reader,
    "mpeg4": Mpeg4Reader,
    "mjpeg": MotionJpegReader,
    "prores": IntraReader,
    "ffv1": IntraReader,
}


@pytest.mark.parametrize("codec", sorted(set(CODECS.values())))
def test_each_codec_has_its_reader_or_none(codec: str) -> None:
    if codec in READERS:
        assert type(reader_for(codec, b"")) is READERS[codec]
    else:
        with pytest.raises(Unplannable, match="packets of this codec are not read"):
            reader_for(codec, b"")

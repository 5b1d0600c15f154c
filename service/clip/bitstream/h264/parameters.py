"""Parameter sets of H.264 (ITU-T H.264, clauses 7.3.2.1 and 7.3.2.2), as far as slice headers depend on them.

Rare features are rejected: flexible macroblock ordering and picture order counts of type 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.packet_info import Unplannable

# Profiles whose sequence parameter sets state the chroma format (clause 7.3.2.1.1).
PROFILES_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
YUV420, YUV444 = 1, 3  # chroma_format_idc
EXTENDED_SAR = 255
MAX_COUNTER_BITS = 16  # of frame_num and pic_order_cnt_lsb, clause 7.4.2.1.1
EXPLICIT_WEIGHTS = 1  # weighted_bipred_idc


@dataclass(frozen=True, slots=True)
class H264Sps:
    """A sequence parameter set.

    Attributes:
        separate_planes: Each colour plane is coded as a separate picture.
        chroma: Slices carry chroma, and so chroma weights.
        frame_num_bits: Bits of `frame_num`.
        poc_type: `pic_order_cnt_type`, 0 or 2.
        poc_bits: Bits of `pic_order_cnt_lsb`.
        max_references: `max_num_ref_frames`.
        frames_only: No picture is a field or has interlaced macroblocks.
        reorder_depth: Number of frames that a decoder holds back to reorder them; None if not stated.
    """

    separate_planes: bool
    chroma: bool
    frame_num_bits: int
    poc_type: int
    poc_bits: int
    max_references: int
    frames_only: bool
    reorder_depth: int | None


@dataclass(frozen=True, slots=True)
class H264Pps:
    """A picture parameter set.

    Attributes:
        sps: Number of its sequence parameter set.
        cabac: Slices use arithmetic coding.
        bottom_poc: Slices carry the order count of the bottom field.
        default_active: Sizes of lists 0 and 1 for slices that do not state them.
        weights_p: P slices carry prediction weights.
        weights_b: B slices carry prediction weights.
        deblocking_control: Slices carry deblocking parameters.
        redundant_slices: Slices state whether they are redundant.
    """

    sps: int
    cabac: bool
    bottom_poc: bool
    default_active: tuple[int, int]
    weights_p: bool
    weights_b: bool
    deblocking_control: bool
    redundant_slices: bool


def read_sps(bits: BitReader) -> tuple[int, H264Sps]:
    """Read a sequence parameter set. Return its number and contents."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    chroma_format, separate_planes = YUV420, False
    if profile in PROFILES_WITH_CHROMA:
        chroma_format = bits.ue()
        separate_planes = chroma_format == YUV444 and bits.flag()
        bits.ue(), bits.ue()  # bit depths
        bits.u(1)
        if bits.flag():
            skip_scaling_matrix(bits, lists=12 if chroma_format == YUV444 else 8)
    frame_num_bits = bits.ue() + 4
    poc_type = bits.ue()
    if poc_type not in {0, 2}:
        raise Unplannable("picture order counts are of type 1")
    poc_bits = bits.ue() + 4 if poc_type == 0 else 0
    if max(frame_num_bits, poc_bits) > MAX_COUNTER_BITS:
        raise Unplannable("a parameter set has counters of too many bits")
    max_references = bits.ue()
    bits.u(1)  # gaps_in_frame_num_value_allowed_flag
    bits.ue(), bits.ue()  # size
    frames_only = bits.flag()
    if not frames_only:
        bits.u(1)
    bits.u(1)  # direct_8x8_inference_flag
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    reorder_depth = read_reorder_depth(bits) if bits.flag() else None
    return number, H264Sps(
        separate_planes=separate_planes,
        chroma=chroma_format > 0 and not separate_planes,
        frame_num_bits=frame_num_bits,
        poc_type=poc_type,
        poc_bits=poc_bits,
        max_references=max_references,
        frames_only=frames_only,
        reorder_depth=0 if poc_type == 2 else reorder_depth,
    )


def skip_scaling_matrix(bits: BitReader, lists: int) -> None:
    """Skip the scaling lists (clause 7.3.2.1.1.1)."""
    for index in range(lists):
        if bits.flag():
            last = following = 8
            for _ in range(16 if index < 6 else 64):
                if following:
                    following = (last + bits.se()) % 256
                last = following or last


def read_reorder_depth(bits: BitReader) -> int | None:
    """Read `max_num_reorder_frames` from the VUI parameters (clause E.1.1); None if absent."""
    if bits.flag() and bits.u(8) == EXTENDED_SAR:
        bits.u(32)
    if bits.flag():  # overscan
        bits.u(1)
    if bits.flag():  # video signal
        bits.u(4)
        if bits.flag():
            bits.u(24)
    if bits.flag():  # chroma location
        bits.ue(), bits.ue()
    if bits.flag():  # timing
        bits.u(65)
    has_nal_hrd = skip_hrd(bits)
    has_vcl_hrd = skip_hrd(bits)
    if has_nal_hrd or has_vcl_hrd:
        bits.u(1)
    bits.u(1)  # pic_struct_present_flag
    if not bits.flag():  # bitstream_restriction_flag
        return None
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return bits.ue()


def skip_hrd(bits: BitReader) -> bool:
    """Skip the hypothetical reference decoder (clause E.1.2). Return whether it is present."""
    if not bits.flag():
        return False
    count = bits.ue() + 1
    bits.u(8)
    for _ in range(count):
        bits.ue(), bits.ue()
        bits.u(1)
    bits.u(20)
    return True


def read_pps(bits: BitReader) -> tuple[int, H264Pps]:
    """Read a picture parameter set. Return its number and contents."""
    number, sps = bits.ue(), bits.ue()
    cabac = bits.flag()
    bottom_poc = bits.flag()
    if bits.ue():
        raise Unplannable("the stream uses flexible macroblock ordering")
    default_active = bits.ue() + 1, bits.ue() + 1
    weights_p, weights_b = bits.flag(), bits.u(2) == EXPLICIT_WEIGHTS
    bits.se(), bits.se(), bits.se()
    deblocking_control = bits.flag()
    bits.u(1)  # constrained_intra_pred_flag
    return number, H264Pps(
        sps=sps,
        cabac=cabac,
        bottom_poc=bottom_poc,
        default_active=default_active,
        weights_p=weights_p,
        weights_b=weights_b,
        deblocking_control=deblocking_control,
        redundant_slices=bits.flag(),
    )

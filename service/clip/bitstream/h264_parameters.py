"""H.264's parameter sets (ITU-T H.264, clauses 7.3.2.1 and 7.3.2.2), as far as slices are read by them.

What real clips hardly ever use is not followed but refused: flexible macroblock ordering, picture order
counts of type 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.clip.bitstream.bits import Bits
from service.clip.bitstream.coded import Unplannable

# Clause 7.3.2.1.1: profiles whose parameter sets tell the chroma format.
PROFILES_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
YUV420, YUV444 = 1, 3  # chroma_format_idc
EXTENDED_SAR = 255
MOST_BITS = 16  # of frame_num and of pic_order_cnt_lsb, clause 7.4.2.1.1
EXPLICIT_WEIGHTS = 1  # weighted_bipred_idc


@dataclass(frozen=True, slots=True)
class Sps:
    """A sequence parameter set.

    Attributes:
        separate_colour_planes: Whether each plane is coded as a picture of its own.
        chroma: Whether slices have chroma, and so weights for it.
        frame_num_bits: Bits of `frame_num`.
        order_type: `pic_order_cnt_type`, 0 or 2.
        order_bits: Bits of `pic_order_cnt_lsb`.
        references: `max_num_ref_frames`.
        frames_only: Whether no picture is a field or may have fields in it.
        reorder_depth: How many frames a decoder holds back to bring them in order; None if it is not said.
    """

    separate_colour_planes: bool
    chroma: bool
    frame_num_bits: int
    order_type: int
    order_bits: int
    references: int
    frames_only: bool
    reorder_depth: int | None


@dataclass(frozen=True, slots=True)
class Pps:
    """A picture parameter set.

    Attributes:
        sps: The number of its sequence parameter set.
        cabac: Whether slices are coded arithmetically.
        order_per_field: Whether slices tell the order of the bottom field apart.
        active: How many pictures lists 0 and 1 have, where a slice does not say.
        weights_p, weights_b: Whether P and B slices come with weights.
        deblocking_control: Whether slices tell how they are deblocked.
        redundant_slices: Whether slices tell if they are redundant.
    """

    sps: int
    cabac: bool
    order_per_field: bool
    active: tuple[int, int]
    weights_p: bool
    weights_b: bool
    deblocking_control: bool
    redundant_slices: bool


def read_sps(bits: Bits) -> tuple[int, Sps]:
    """A sequence parameter set and its number."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    chroma, separate = _read_chroma(bits) if profile in PROFILES_WITH_CHROMA else (YUV420, False)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type not in {0, 2}:
        raise Unplannable("picture order counts of type 1")
    order_bits = bits.ue() + 4 if order_type == 0 else 0
    if max(frame_num_bits, order_bits) > MOST_BITS:
        raise Unplannable("numbers of more bits than there are")
    references = bits.ue()
    bits.u(1)  # gaps_in_frame_num_value_allowed_flag
    bits.ue(), bits.ue()  # size
    frames_only = bits.flag()
    if not frames_only:
        bits.u(1)
    bits.u(1)  # direct_8x8_inference_flag
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    depth = _declared_depth(bits) if bits.flag() else None
    if order_type == 2:
        depth = 0
    return number, Sps(
        separate_colour_planes=separate,
        chroma=chroma > 0 and not separate,
        frame_num_bits=frame_num_bits,
        order_type=order_type,
        order_bits=order_bits,
        references=references,
        frames_only=frames_only,
        reorder_depth=depth,
    )


def _read_chroma(bits: Bits) -> tuple[int, bool]:
    """The chroma format, and whether the planes are coded apart; depth and scaling lists are read over."""
    chroma = bits.ue()
    separate = chroma == YUV444 and bits.flag()
    bits.ue(), bits.ue()
    bits.u(1)
    if bits.flag():
        for index in range(12 if chroma == YUV444 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma, separate


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _declared_depth(bits: Bits) -> int | None:
    """`max_num_reorder_frames` of the VUI parameters (clause E.1.1), if there."""
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
    if sum([_skip_hrd(bits), _skip_hrd(bits)]):  # of NAL units, of the coded video alone
        bits.u(1)
    bits.u(1)  # pic_struct_present_flag
    if not bits.flag():
        return None
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return bits.ue()


def _skip_hrd(bits: Bits) -> bool:
    """Read over the parameters of a hypothetical decoder (clause E.1.2); whether they were there."""
    if not bits.flag():
        return False
    count = bits.ue() + 1
    bits.u(8)
    for _ in range(count):
        bits.ue(), bits.ue()
        bits.u(1)
    bits.u(20)
    return True


def read_pps(bits: Bits) -> tuple[int, Pps]:
    """A picture parameter set and its number."""
    number, sps = bits.ue(), bits.ue()
    cabac = bits.flag()
    order_per_field = bits.flag()
    if bits.ue():
        raise Unplannable("flexible macroblock ordering")
    active = bits.ue() + 1, bits.ue() + 1
    weights_p, weights_b = bits.flag(), bits.u(2) == EXPLICIT_WEIGHTS
    bits.se(), bits.se(), bits.se()
    deblocking_control = bits.flag()
    bits.u(1)  # constrained_intra_pred_flag
    return number, Pps(
        sps=sps,
        cabac=cabac,
        order_per_field=order_per_field,
        active=active,
        weights_p=weights_p,
        weights_b=weights_b,
        deblocking_control=deblocking_control,
        redundant_slices=bits.flag(),
    )

"""Slice headers of H.264 (ITU-T H.264, clause 7.3.3): read them, and write them with other references.

`read_slice_start` reads what all pictures have. `read_slice_header` reads the rest, only of frames (not
fields) with short-term references; everything else is rejected.
"""

from __future__ import annotations

from typing import NamedTuple

from service.clip.bitstream.bits import BitReader, BitWriter, escape, unescape
from service.clip.bitstream.h264.parameters import H264Pps, H264Sps
from service.clip.bitstream.packet_info import Unplannable

IDR = 5  # nal_unit_type
P_SLICE, B_SLICE, I_SLICE = 0, 1, 2  # slice_type modulo 5
LIST_END = 3  # modification_of_pic_nums_idc
REMOVE_SHORT_TERM = 1  # memory_management_control_operation
MAX_ACTIVE = 32  # references in a list, clause 7.4.3
START_BYTES = 40  # covers the start of every header
USUAL_BYTES = 48  # covers most headers
MAX_BYTES = 2048  # covers every header: two lists with weights take less


class ListChange(NamedTuple):
    """One step that modifies a reference list (clause 7.3.3.1).

    Attributes:
        direction: `modification_of_pic_nums_idc`: 0 counts backwards, 1 forwards.
        difference: `abs_diff_pic_num_minus1`.
    """

    direction: int
    difference: int


class SliceReferences(NamedTuple):
    """The references in a slice header.

    Attributes:
        frame_num: Counter of the reference frames, modulo a power of two.
        changes: For each reference list the steps that modify the initial list.
        removals: `difference_of_pic_nums_minus1` of each frame to forget after this one; None: the oldest is
            forgotten when the buffer is full.
    """

    frame_num: int
    changes: tuple[tuple[ListChange, ...], ...]
    removals: tuple[int, ...] | None


class SliceStart(NamedTuple):
    """The first part of a slice header.

    Attributes:
        kind: `slice_type` modulo 5.
        sps: The sequence parameter set.
        pps: The picture parameter set.
        frame_num: Counter of the reference frames.
        frame_num_end: Bit position after `frame_num`.
        is_field: The picture is a field.
        is_bottom: It is a bottom field.
        poc_lsb: Low bits of the picture order count; None with type 2, where pictures are shown as coded.
        poc_bottom: Difference of the bottom field's order count from the top field's.
    """

    kind: int
    sps: H264Sps
    pps: H264Pps
    frame_num: int
    frame_num_end: int
    is_field: bool
    is_bottom: bool
    poc_lsb: int | None
    poc_bottom: int


class BitPositions(NamedTuple):
    """Bit positions of the parts that `write_slice` replaces, and of the header's end."""

    frame_num: int
    frame_num_end: int
    changes: int
    changes_end: int
    removals: int
    removals_end: int
    end: int


class SliceHeader(NamedTuple):
    """A complete slice header.

    Attributes:
        is_idr: Decoding can start here.
        is_reference: Other pictures may refer to this one.
        kind: `P_SLICE`, `B_SLICE` or `I_SLICE`.
        poc_lsb: Low bits of the picture order count of the top field.
        poc_bottom: Difference of the bottom field's order count from the top field's.
        list_sizes: Number of frames in each reference list.
        references: The references.
        cabac: The slice data uses arithmetic coding, and so starts at a byte boundary.
        positions: Bit positions of the parts.
    """

    is_idr: bool
    is_reference: bool
    kind: int
    poc_lsb: int
    poc_bottom: int
    list_sizes: tuple[int, ...]
    references: SliceReferences
    cabac: bool
    positions: BitPositions


def slice_bits(unit: memoryview, size: int = START_BYTES) -> BitReader:
    """Return a reader of the slice header in the first `size` bytes of a NAL unit."""
    return BitReader(unescape(bytes(unit[1:size])))


def read_slice_type(bits: BitReader) -> int:
    """Read `slice_type` modulo 5 from the front of a slice header."""
    bits.ue()  # first_mb_in_slice
    return bits.ue() % 5


def read_slice_start(
    bits: BitReader, spss: dict[int, H264Sps], ppss: dict[int, H264Pps], *, is_idr: bool
) -> SliceStart:
    """Read a slice header up to its reference lists.

    Raises:
        Unplannable: The header is truncated, its parameter sets are unknown, or the slice is redundant.
    """
    kind = read_slice_type(bits)
    pps = ppss.get(bits.ue())
    sps = spss.get(pps.sps) if pps else None
    if pps is None or sps is None:
        raise Unplannable("a picture lacks its parameter sets")
    if sps.separate_planes:
        bits.u(2)
    frame_num = bits.u(sps.frame_num_bits)
    frame_num_end = bits.position
    is_field = not sps.frames_only and bits.flag()
    is_bottom = is_field and bits.flag()
    if is_idr:
        bits.ue()  # idr_pic_id
    poc_lsb, poc_bottom = None, 0
    if sps.poc_type == 0:
        poc_lsb = bits.u(sps.poc_bits)
        if pps.bottom_poc and not is_field:
            poc_bottom = bits.se()
    if pps.redundant_slices and bits.ue():
        raise Unplannable("the stream has redundant slices")
    return SliceStart(kind, sps, pps, frame_num, frame_num_end, is_field, is_bottom, poc_lsb, poc_bottom)


def read_slice_header(unit: memoryview, spss: dict[int, H264Sps], ppss: dict[int, H264Pps]) -> SliceHeader:
    """Read the whole header of the slice in a NAL unit.

    Raises:
        Unplannable: The header is truncated, or does not belong to a frame with short-term references.
    """
    try:
        return _read_whole(unit, USUAL_BYTES, spss, ppss)
    except Unplannable:  # possibly only because the header is longer
        return _read_whole(unit, MAX_BYTES, spss, ppss)


def _read_whole(
    unit: memoryview, size: int, spss: dict[int, H264Sps], ppss: dict[int, H264Pps]
) -> SliceHeader:
    is_idr, is_reference = unit[0] & 31 == IDR, bool(unit[0] & 0x60)
    bits = slice_bits(unit, size)
    start = read_slice_start(bits, spss, ppss, is_idr=is_idr)
    kind, sps, pps = start.kind, start.sps, start.pps
    if kind > I_SLICE:
        raise Unplannable("the stream has switching slices")
    if start.poc_lsb is None or not sps.frames_only or sps.separate_planes:
        raise Unplannable("the stream has more than plain frames")
    list_sizes: tuple[int, ...] = ()
    if kind != I_SLICE:
        if kind == B_SLICE:
            bits.u(1)  # direct_spatial_mv_pred_flag
        lists = 2 if kind == B_SLICE else 1
        list_sizes = tuple(bits.ue() + 1 for _ in range(lists)) if bits.flag() else pps.default_active[:lists]
        if max(list_sizes) > MAX_ACTIVE:
            raise Unplannable("a slice has too many references")
    changes_start = bits.position
    changes = tuple(read_list_changes(bits) for _ in list_sizes)
    changes_end = bits.position
    if (kind == P_SLICE and pps.weights_p) or (kind == B_SLICE and pps.weights_b):
        skip_weights(bits, sum(list_sizes), chroma=sps.chroma)
    removals_start = bits.position
    removals = read_removals(bits, is_idr=is_idr) if is_reference else None
    removals_end = bits.position
    if pps.cabac and kind != I_SLICE:
        bits.ue()  # cabac_init_idc
    bits.se()  # slice_qp_delta
    if pps.deblocking_control and bits.ue() != 1:
        bits.se(), bits.se()
    frame_num_start = start.frame_num_end - sps.frame_num_bits
    return SliceHeader(
        is_idr=is_idr,
        is_reference=is_reference,
        kind=kind,
        poc_lsb=start.poc_lsb,
        poc_bottom=start.poc_bottom,
        list_sizes=list_sizes,
        references=SliceReferences(start.frame_num, changes, removals),
        cabac=pps.cabac,
        positions=BitPositions(
            frame_num_start,
            start.frame_num_end,
            changes_start,
            changes_end,
            removals_start,
            removals_end,
            bits.position,
        ),
    )


def read_list_changes(bits: BitReader) -> tuple[ListChange, ...]:
    """Read the changes of one reference list (clause 7.3.3.1)."""
    changes: list[ListChange] = []
    if bits.flag():
        while (direction := bits.ue()) != LIST_END:
            if direction > 1:
                raise Unplannable("the stream has long-term references")
            changes.append(ListChange(direction, bits.ue()))
            if len(changes) > MAX_ACTIVE:
                raise Unplannable("a slice has too many references")
    return tuple(changes)


def skip_weights(bits: BitReader, references: int, *, chroma: bool) -> None:
    """Skip the prediction weights (clause 7.3.3.2)."""
    bits.ue()
    if chroma:
        bits.ue()
    for _ in range(references):
        if bits.flag():
            bits.se(), bits.se()
        if chroma and bits.flag():
            bits.se(), bits.se(), bits.se(), bits.se()


def read_removals(bits: BitReader, *, is_idr: bool) -> tuple[int, ...] | None:
    """Read which frames to forget (clause 7.3.3.3)."""
    if is_idr:
        if bits.u(2):
            raise Unplannable("pictures are discarded before display, or references are long-term")
        return None
    if not bits.flag():
        return None
    removals: list[int] = []
    while operation := bits.ue():
        if operation != REMOVE_SHORT_TERM:
            raise Unplannable("the stream has long-term references")
        removals.append(bits.ue())
    return tuple(removals)


def write_slice(unit: memoryview, header: SliceHeader, references: SliceReferences) -> bytes:
    """Return the NAL unit of a slice with `references` in its header and everything else unchanged."""
    payload = unescape(bytes(unit[1:]))
    at = header.positions
    old = BitReader(payload[: at.end // 8 + 1])
    new = BitWriter()
    new.u(*old.between(0, at.frame_num))
    new.u(references.frame_num, at.frame_num_end - at.frame_num)
    new.u(*old.between(at.frame_num_end, at.changes))
    for changes in references.changes:
        new.u(bool(changes), 1)
        for change in changes:
            new.ue(change.direction)
            new.ue(change.difference)
        if changes:
            new.ue(LIST_END)
    new.u(*old.between(at.changes_end, at.removals))
    if header.is_idr or not header.is_reference:
        new.u(*old.between(at.removals, at.removals_end))
    else:
        new.u(references.removals is not None, 1)
        for difference in references.removals or ():
            new.ue(REMOVE_SHORT_TERM)
            new.ue(difference)
        if references.removals is not None:
            new.ue(0)
    new.u(*old.between(at.removals_end, at.end))
    if header.cabac:  # ones pad the header to a byte boundary, where the data starts
        filling = -new.count % 8
        new.u((1 << filling) - 1, filling)
        written = new.value.to_bytes(new.count // 8, "big") + payload[(at.end + 7) // 8 :]
    else:
        data = BitReader(payload[at.end // 8 :])
        new.u(*data.between(at.end % 8, 8 * (len(payload) - at.end // 8)))
        new.u(0, -new.count % 8)
        written = new.value.to_bytes(new.count // 8, "big")
    return bytes(unit[:1]) + escape(written.rstrip(b"\0"))

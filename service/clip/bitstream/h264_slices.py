"""Slice headers of H.264 (ITU-T H.264, clause 7.3.3), read whole, and written with other references.

Only of frames, with references of the short-term kind: what is rare is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.clip.bitstream.bits import Bits, BitsWritten, escaped, unescaped
from service.clip.bitstream.coded import Unplannable
from service.clip.bitstream.h264_parameters import Pps, Sps

IDR = 5  # nal_unit_type
P_SLICE, B_SLICE, I_SLICE = 0, 1, 2  # slice_type modulo 5
LIST_END = 3  # modification_of_pic_nums_idc
REMOVE_SHORT_TERM = 1  # memory_management_control_operation
MOST_ACTIVE = 32  # references in a list, clause 7.4.3
FIRST_LOOK_BYTES = 48  # more than most headers have
MOST_BYTES = 2048  # more than any has: two lists with weights are fewer


class Change(NamedTuple):
    """A step in the making of a list (clause 7.3.3.1).

    Attributes:
        kind: `modification_of_pic_nums_idc`: 0 counts back, 1 forth.
        difference: `abs_diff_pic_num_minus1`.
    """

    kind: int
    difference: int


class References(NamedTuple):
    """What a slice header says of references.

    Attributes:
        frame_num: The frame's, modulo what the parameter set says.
        changes: For each list that the slice has, steps to make it of the initial one.
        removals: `difference_of_pic_nums_minus1` of each frame that is not to be kept behind this one; None:
            the oldest goes if there is no room.
    """

    frame_num: int
    changes: tuple[tuple[Change, ...], ...]
    removals: tuple[int, ...] | None


class Places(NamedTuple):
    """Where in a header the parts are that `written` replaces, and where it ends, in bits."""

    frame_num: int
    behind_frame_num: int
    changes: int
    behind_changes: int
    removals: int
    behind_removals: int
    end: int


class SliceHeader(NamedTuple):
    """A slice's header.

    Attributes:
        idr: Whether decoding can begin here.
        referenced: Whether others may refer to its frame.
        kind: `P_SLICE`, `B_SLICE` or `I_SLICE`.
        order_lsb: Low bits of the picture order count of the top field.
        order_of_bottom: How much larger that of the bottom field is.
        active: How many frames each of its lists has.
        references: What it says of them.
        cabac: Whether what follows is coded arithmetically, and so begins at a byte.
        places: Where its parts are.
    """

    idr: bool
    referenced: bool
    kind: int
    order_lsb: int
    order_of_bottom: int
    active: tuple[int, ...]
    references: References
    cabac: bool
    places: Places


def read_header(unit: memoryview, spss: dict[int, Sps], ppss: dict[int, Pps]) -> SliceHeader:
    """The header of the slice in a NAL unit.

    Raises:
        Unplannable: it is cut off, or not one of a frame with references of the short-term kind.
    """
    try:
        return _read(unit, FIRST_LOOK_BYTES, spss, ppss)
    except Unplannable:
        return _read(unit, MOST_BYTES, spss, ppss)


def _read(unit: memoryview, size: int, spss: dict[int, Sps], ppss: dict[int, Pps]) -> SliceHeader:
    idr, referenced = unit[0] & 31 == IDR, bool(unit[0] & 0x60)
    bits = Bits(unescaped(bytes(unit[1:size])))
    bits.ue()  # first_mb_in_slice
    kind = bits.ue() % 5
    if kind > I_SLICE:
        raise Unplannable("switching slices")
    pps = ppss.get(bits.ue())
    sps = spss.get(pps.sps) if pps else None
    if pps is None or sps is None:
        raise Unplannable("a picture without its parameter sets")
    if sps.order_type or not sps.frames_only or sps.separate_colour_planes:
        raise Unplannable("slices of another kind than those of plain frames")
    number_at = bits.position
    frame_num = bits.u(sps.frame_num_bits)
    behind_number = bits.position
    if idr:
        bits.ue()  # idr_pic_id
    order_lsb = bits.u(sps.order_bits)
    order_of_bottom = bits.se() if pps.order_per_field else 0
    if pps.redundant_slices and bits.ue():
        raise Unplannable("redundant slices")
    active = _read_active(bits, kind, pps)
    changes_at = bits.position
    changes = tuple(_read_changes(bits) for _ in active)
    behind_changes = bits.position
    if (kind == P_SLICE and pps.weights_p) or (kind == B_SLICE and pps.weights_b):
        _skip_weights(bits, active, chroma=sps.chroma)
    removals_at = bits.position
    removals = _read_removals(bits, idr=idr) if referenced else None
    behind_removals = bits.position
    if pps.cabac and kind != I_SLICE:
        bits.ue()  # cabac_init_idc
    bits.se()  # slice_qp_delta
    if pps.deblocking_control and bits.ue() != 1:
        bits.se(), bits.se()
    return SliceHeader(
        idr=idr,
        referenced=referenced,
        kind=kind,
        order_lsb=order_lsb,
        order_of_bottom=order_of_bottom,
        active=active,
        references=References(frame_num, changes, removals),
        cabac=pps.cabac,
        places=Places(
            number_at, behind_number, changes_at, behind_changes, removals_at, behind_removals, bits.position
        ),
    )


def _read_active(bits: Bits, kind: int, pps: Pps) -> tuple[int, ...]:
    if kind == I_SLICE:
        return ()
    if kind == B_SLICE:
        bits.u(1)  # direct_spatial_mv_pred_flag
    lists = 2 if kind == B_SLICE else 1
    active = tuple(bits.ue() + 1 for _ in range(lists)) if bits.flag() else pps.active[:lists]
    if max(active) > MOST_ACTIVE:
        raise Unplannable("more references than a slice can have")
    return active


def _read_changes(bits: Bits) -> tuple[Change, ...]:
    """Clause 7.3.3.1, of one list."""
    changes: list[Change] = []
    if bits.flag():
        while (kind := bits.ue()) != LIST_END:
            if kind > 1:
                raise Unplannable("references of the long-term kind")
            changes.append(Change(kind, bits.ue()))
            if len(changes) > MOST_ACTIVE:
                raise Unplannable("more references than a slice can have")
    return tuple(changes)


def _skip_weights(bits: Bits, active: tuple[int, ...], *, chroma: bool) -> None:
    """Clause 7.3.3.2."""
    bits.ue()
    if chroma:
        bits.ue()
    for _ in range(sum(active)):
        if bits.flag():
            bits.se(), bits.se()
        if chroma and bits.flag():
            bits.se(), bits.se(), bits.se(), bits.se()


def _read_removals(bits: Bits, *, idr: bool) -> tuple[int, ...] | None:
    """Clause 7.3.3.3."""
    if idr:
        if bits.u(2):
            raise Unplannable("pictures that are thrown away unseen, or references of the long-term kind")
        return None
    if not bits.flag():
        return None
    removals: list[int] = []
    while kind := bits.ue():
        if kind != REMOVE_SHORT_TERM:
            raise Unplannable("references of the long-term kind")
        removals.append(bits.ue())
    return tuple(removals)


def written(unit: memoryview, header: SliceHeader, references: References) -> bytes:
    """The NAL unit of a slice with other `references` in its header, else as it was."""
    payload = unescaped(bytes(unit[1:]))
    at = header.places
    old = Bits(payload[: at.end // 8 + 1])
    new = BitsWritten()
    new.u(*old.between(0, at.frame_num))
    new.u(references.frame_num, at.behind_frame_num - at.frame_num)
    new.u(*old.between(at.behind_frame_num, at.changes))
    for changes in references.changes:
        _write_changes(new, changes)
    new.u(*old.between(at.behind_changes, at.removals))
    if header.idr or not header.referenced:
        new.u(*old.between(at.removals, at.behind_removals))
    else:
        _write_removals(new, references.removals)
    new.u(*old.between(at.behind_removals, at.end))
    return bytes(unit[:1]) + escaped(_with_data(new, payload, header).rstrip(b"\0"))


def _write_changes(new: BitsWritten, changes: Sequence[Change]) -> None:
    new.u(bool(changes), 1)
    for change in changes:
        new.ue(change.kind)
        new.ue(change.difference)
    if changes:
        new.ue(LIST_END)


def _write_removals(new: BitsWritten, removals: Sequence[int] | None) -> None:
    new.u(removals is not None, 1)
    for difference in removals or ():
        new.ue(REMOVE_SHORT_TERM)
        new.ue(difference)
    if removals is not None:
        new.ue(0)


def _with_data(new: BitsWritten, payload: bytes, header: SliceHeader) -> bytes:
    """The new header, and behind it the slice's data as they were."""
    end = header.places.end
    if header.cabac:  # from a byte's beginning on, behind bits of one
        filling = -new.count % 8
        new.u((1 << filling) - 1, filling)
        return new.value.to_bytes(new.count // 8, "big") + payload[(end + 7) // 8 :]
    data = Bits(payload[end // 8 :])
    new.u(*data.between(end % 8, 8 * (len(payload) - end // 8)))
    new.u(0, -new.count % 8)
    return new.value.to_bytes(new.count // 8, "big")

"""MPEG-1, MPEG-2 and MPEG-4 part 2 (ISO/IEC 11172-2, 13818-2, 14496-2): nothing refers to a B picture.

A picture of another kind is shown when the next of another kind comes, a B picture at once.
"""

from __future__ import annotations

from service.clip.bitstream.bits import Bits
from service.clip.bitstream.coded import Coded, Entry, NotThinned, Unplannable

START_CODE = b"\0\0\1"
# MPEG-1 and -2: start codes, picture_coding_type, extension_start_code_identifier, picture_structure.
PICTURE, SEQUENCE, EXTENSION = 0x00, 0xB3, 0xB5
FIRST_SLICE, LAST_SLICE = 0x01, 0xAF
I_PICTURE, B_PICTURE = 1, 3
QUANT_MATRIX, PICTURE_CODING = 3, 8
WHOLE_FRAME = 3
# MPEG-4: start codes, vop_coding_type, aspect_ratio_info.
VOP = 0xB6
FIRST_VOL, LAST_VOL = 0x20, 0x2F
I_VOP, B_VOP = 0, 2
EXTENDED_PAR = 15


class DisplayOrder:
    """Numbers pictures as the decoder gives them: one that is referred to after the Bs that follow it.

    How many will follow is not known yet, so there is room for `GAP` of them.
    """

    GAP = 1 << 20

    def __init__(self) -> None:
        self._references = 0
        self._between = 0

    def next(self, is_b: bool) -> int:
        """The place of the next picture."""
        if is_b:
            self._between += 1
            return (self._references - 1) * self.GAP + self._between
        self._references += 1
        self._between = 0
        return self._references * self.GAP


class Mpeg2Reader(NotThinned):
    """See `Reader`; for MPEG-1 as well."""

    independent = False  # quantiser matrices may come anywhere

    def __init__(self) -> None:
        self._order = DisplayOrder()

    def reorder_depth(self) -> int | None:
        """See `Reader`."""
        return 1

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        data = bytes(packet)
        kinds: list[int] = []
        structures: list[int] = []
        with_sequence = with_matrix = False
        at = data.find(START_CODE)
        while 0 <= at < len(data) - 9:
            code = data[at + 3]
            if code == PICTURE:
                kinds.append(data[at + 5] >> 3 & 7)
            elif code == SEQUENCE:
                with_sequence = True
            elif code == EXTENSION:
                with_matrix = with_matrix or data[at + 4] >> 4 == QUANT_MATRIX
                if data[at + 4] >> 4 == PICTURE_CODING:
                    structures.append(data[at + 6] & 3)
            slices = FIRST_SLICE <= code <= LAST_SLICE
            at = data.find(START_CODE + b"\0" if slices else START_CODE, at + 3)
        _check_is_one_frame(kinds, structures)
        disposable = all(kind == B_PICTURE for kind in kinds) and not with_matrix
        entry = Entry.OPEN if kinds[0] == I_PICTURE and with_sequence else Entry.NONE
        return Coded(self._order.next(kinds[0] == B_PICTURE), entry, referenced=not disposable)


def _check_is_one_frame(kinds: list[int], structures: list[int]) -> None:
    if not kinds:
        raise Unplannable("a packet without a picture")
    fields = [structure for structure in structures if structure != WHOLE_FRAME]
    if len(kinds) == 1 and fields:
        raise Unplannable("fields in packets of their own")
    if len(kinds) > 2 or (len(kinds) == 2 and sorted(fields) != [1, 2]):
        raise Unplannable("several pictures in a packet")


class Mpeg4Reader(NotThinned):
    """See `Reader`; `header` is the stream's own, with the video object layer."""

    independent = False  # how faults of old encoders are worked around is found out from the first packets

    def __init__(self, header: bytes) -> None:
        self._order = DisplayOrder()
        self._layer: bytes | None = None
        self._time_bits = 0
        self._interlaced = False
        self._in_header = self._take_layer(header)

    def reorder_depth(self) -> int | None:
        """See `Reader`."""
        return 1

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        data = bytes(packet)
        at = data.find(START_CODE + bytes([VOP]))
        if at < 0:
            raise Unplannable("a packet without a picture")
        if data.find(START_CODE + bytes([VOP]), at + 4) >= 0:
            raise Unplannable("several pictures in a packet")
        with_layer = self._take_layer(data[:at])
        if self._layer is None:
            raise Unplannable("a picture without its parameters")
        kind = self._kind(data[at + 4 : at + 32])
        entry = Entry.OPEN if kind == I_VOP and (with_layer or self._in_header) else Entry.NONE
        # Direct mode in interlaced pictures goes by the first B picture that the decoder has seen.
        disposable = kind == B_VOP and not self._interlaced
        return Coded(self._order.next(kind == B_VOP), entry, referenced=not disposable)

    def _kind(self, header: bytes) -> int:
        """`vop_coding_type` (clause 6.2.5)."""
        bits = Bits(header)
        kind = bits.u(2)
        while bits.flag():  # modulo_time_base
            pass
        bits.u(1 + self._time_bits + 1)
        if not bits.flag():
            raise Unplannable("pictures that are not coded")
        return kind

    def _take_layer(self, data: bytes) -> bool:
        """Read the video object layer (clause 6.2.3), if it is there; only one is allowed for."""
        at = data.find(START_CODE)
        while at >= 0 and not (at + 3 < len(data) and FIRST_VOL <= data[at + 3] <= LAST_VOL):
            at = data.find(START_CODE, at + 3)
        if at < 0:
            return False
        end = data.find(START_CODE, at + 3)
        layer = data[at + 4 : end if end >= 0 else len(data)]
        if self._layer is None:
            self._layer = layer
            self._read_layer(Bits(layer))
        elif layer != self._layer:
            raise Unplannable("parameters that change")
        return True

    def _read_layer(self, bits: Bits) -> None:
        bits.u(9)
        if bits.flag():  # is_object_layer_identifier
            bits.u(7)
        if bits.u(4) == EXTENDED_PAR:
            bits.u(16)
        if bits.flag():  # vol_control_parameters
            bits.u(3)
            if bits.flag():
                bits.u(79)
        if bits.u(2):
            raise Unplannable("pictures that are not rectangular")
        bits.u(1)
        resolution = bits.u(16)
        self._time_bits = max(1, (resolution - 1).bit_length())
        bits.u(1)
        if bits.flag():  # fixed_vop_rate
            bits.u(self._time_bits)
        bits.u(1 + 13 + 1 + 13 + 1)
        self._interlaced = bits.flag()

"""MPEG-1, MPEG-2 and MPEG-4 part 2 (ISO/IEC 11172-2, 13818-2, 14496-2).

B pictures are shown at once and never referred to. Any other picture is shown when the next one of its kind
arrives.
"""

from __future__ import annotations

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable, WithoutPruner

START_CODE = b"\0\0\1"
# MPEG-1 and MPEG-2: start codes, picture_coding_type, extension_start_code_identifier, picture_structure.
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
    """Numbers pictures in display order: a reference picture comes after the B pictures that follow it.

    The number of these B pictures is unknown when the reference picture is numbered, so it leaves a gap.
    """

    GAP = 1 << 20

    def __init__(self) -> None:
        self._references = 0
        self._b_pictures = 0

    def next(self, *, is_b: bool) -> int:
        """Return the number of the next picture."""
        if is_b:
            self._b_pictures += 1
            return (self._references - 1) * self.GAP + self._b_pictures
        self._references += 1
        self._b_pictures = 0
        return self._references * self.GAP


class Mpeg2Reader(WithoutPruner):
    """`PacketReader` for MPEG-1 and MPEG-2."""

    independent = False  # quantiser matrices may occur anywhere

    def __init__(self) -> None:
        self._order = DisplayOrder()

    def reorder_depth(self) -> int | None:
        """One frame."""
        return 1

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        data = bytes(packet)
        kinds: list[int] = []
        structures: list[int] = []
        has_sequence = has_matrix = False
        position = data.find(START_CODE)
        while 0 <= position < len(data) - 9:
            code = data[position + 3]
            if code == PICTURE:
                kinds.append(data[position + 5] >> 3 & 7)
            elif code == SEQUENCE:
                has_sequence = True
            elif code == EXTENSION:
                identifier = data[position + 4] >> 4
                has_matrix = has_matrix or identifier == QUANT_MATRIX
                if identifier == PICTURE_CODING:
                    structures.append(data[position + 6] & 3)
            # After a slice only another picture matters; other slices are skipped for speed.
            is_slice = FIRST_SLICE <= code <= LAST_SLICE
            position = data.find(START_CODE + b"\0" if is_slice else START_CODE, position + 3)
        if not kinds:
            raise Unplannable("a packet has no picture")
        fields = [structure for structure in structures if structure != WHOLE_FRAME]
        if len(kinds) == 1 and fields:
            raise Unplannable("fields are in separate packets")
        if len(kinds) > 2 or (len(kinds) == 2 and sorted(fields) != [1, 2]):
            raise Unplannable("a packet has several pictures")
        is_reference = has_matrix or any(kind != B_PICTURE for kind in kinds)
        starts = kinds[0] == I_PICTURE and has_sequence
        return PacketInfo(
            self._order.next(is_b=kinds[0] == B_PICTURE),
            RandomAccess.OPEN if starts else RandomAccess.NONE,
            is_reference=is_reference,
        )


class Mpeg4Reader(WithoutPruner):
    """`PacketReader` for MPEG-4 part 2.

    Args:
        header: The stream header, with the video object layer (VOL).
    """

    independent = False  # FFmpeg uses the first packets to detect the encoder and to work around its bugs

    def __init__(self, header: bytes) -> None:
        self._order = DisplayOrder()
        self._vol: bytes | None = None
        self._time_bits = 0
        self._interlaced = False
        self._vol_in_header = self._read_vol(header)

    def reorder_depth(self) -> int | None:
        """One frame."""
        return 1

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        data = bytes(packet)
        position = data.find(START_CODE + bytes([VOP]))
        if position < 0:
            raise Unplannable("a packet has no picture")
        if data.find(START_CODE + bytes([VOP]), position + 4) >= 0:
            raise Unplannable("a packet has several pictures")
        has_vol = self._read_vol(data[:position])
        if self._vol is None:
            raise Unplannable("a picture lacks its parameters")
        bits = BitReader(data[position + 4 : position + 32])
        kind = bits.u(2)  # vop_coding_type, clause 6.2.5
        while bits.flag():  # modulo_time_base
            pass
        bits.u(1 + self._time_bits + 1)
        if not bits.flag():  # vop_coded
            raise Unplannable("a picture is not coded")
        starts = kind == I_VOP and (has_vol or self._vol_in_header)
        return PacketInfo(
            self._order.next(is_b=kind == B_VOP),
            RandomAccess.OPEN if starts else RandomAccess.NONE,
            # The direct mode of interlaced pictures depends on the first B picture that the decoder has seen.
            is_reference=kind != B_VOP or self._interlaced,
        )

    def _read_vol(self, data: bytes) -> bool:
        """Read the video object layer (clause 6.2.3) in `data`, if any. Return whether there is one."""
        start = data.find(START_CODE)
        while start >= 0 and not (start + 3 < len(data) and FIRST_VOL <= data[start + 3] <= LAST_VOL):
            start = data.find(START_CODE, start + 3)
        if start < 0:
            return False
        end = data.find(START_CODE, start + 3)
        vol = data[start + 4 : end if end >= 0 else len(data)]
        if self._vol is not None and vol != self._vol:
            raise Unplannable("the parameters change")
        if self._vol is None:
            self._vol = vol
            bits = BitReader(vol)
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
                raise Unplannable("pictures are not rectangular")
            bits.u(1)
            resolution = bits.u(16)
            self._time_bits = max(1, (resolution - 1).bit_length())
            bits.u(1)
            if bits.flag():  # fixed_vop_rate
                bits.u(self._time_bits)
            bits.u(1 + 13 + 1 + 13 + 1)
            self._interlaced = bits.flag()
        return True

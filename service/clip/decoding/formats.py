"""The containers and codecs that are accepted, and their names for callers.

Both lists are short on purpose: each demuxer and decoder is code that runs on hostile bytes.
"""

from __future__ import annotations

# FFmpeg's demuxers for common uploads: mp4, mov and related formats; Matroska and WebM; AVI; MPEG transport
# and program streams; FLV; Ogg; ASF (WMV); formats of cameras and editors (MXF, DV); animated pictures (GIF,
# APNG); streams without a real container (y4m, IVF, OBU, H.264, HEVC, MPEG-1, 2 and 4). The main exclusions
# are formats that name other files (hls, dash, concat, sdp, image2) or render text (tty, xbin), and `mjpeg`,
# which would accept every photograph as a video.
FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "mxf", "dv", "gif", "apng",
    "yuv4mpegpipe", "ivf", "obu", "h264", "hevc", "mpegvideo", "m4v",
)  # fmt: skip

# The usual suffixes of these containers, by which videos are found in folders.
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2",  # ISO base media and QuickTime
    ".mkv", ".webm",  # Matroska
    ".avi", ".divx",
    ".ts", ".mts", ".m2ts", ".m2t",  # MPEG transport stream
    ".mpg", ".mpeg", ".vob", ".m1v", ".m2v",  # MPEG program and elementary streams
    ".wmv", ".asf",
    ".flv", ".ogv", ".ogg", ".mxf", ".dv", ".gif", ".apng", ".y4m", ".ivf", ".obu",
    ".h264", ".264", ".h265", ".265", ".hevc",
})  # fmt: skip

# Containers without timestamps: FFmpeg makes them up, differently in each pass and not always evenly.
UNTIMED = frozenset({"obu", "h264", "hevc", "mpegvideo", "m4v"})
# Containers that store a duration for each frame, or from which it follows. FFmpeg guesses it for the others.
STATES_DURATIONS = frozenset({"mp4", "mov", "matroska", "webm", "gif", "apng", "avi"})

# Decoder name in FFmpeg -> codec name for callers. vvc is left out for CVE-2026-125244 and magicyuv for
# CVE-2026-8461; VP6 and SVQ3 because no current software encodes them, so they cannot be tested; the rest
# because they are rarely uploaded.
CODECS = {
    "h264": "h264",
    "hevc": "hevc",
    "vp8": "vp8",
    "vp9": "vp9",
    "libdav1d": "av1",
    "av1": "av1",
    "mpeg1video": "mpeg1video",
    "mpeg2video": "mpeg2video",
    "mpeg4": "mpeg4",
    "msmpeg4v1": "msmpeg4v1",
    "msmpeg4v2": "msmpeg4v2",
    "msmpeg4": "msmpeg4v3",
    "wmv1": "wmv1",
    "wmv2": "wmv2",
    "wmv3": "wmv3",
    "vc1": "vc1",
    "h263": "h263",
    "flv": "flv1",
    "theora": "theora",
    "mjpeg": "mjpeg",
    "prores": "prores",
    "dnxhd": "dnxhd",
    "cfhd": "cfhd",
    "dvvideo": "dvvideo",
    "ffv1": "ffv1",
    "huffyuv": "huffyuv",
    "ffvhuff": "ffvhuff",
    "utvideo": "utvideo",
    "cinepak": "cinepak",
    "msvideo1": "msvideo1",
    "svq1": "svq1",
    "qtrle": "qtrle",
    "png": "png",
    "rawvideo": "rawvideo",
    "v210": "v210",
    "gif": "gif",
    "apng": "apng",
}

# First bytes of the other accepted containers: EBML, FLV, Ogg, GIF, MPEG program stream, ASF header object,
# MXF partition pack, y4m, IVF.
SIGNATURES = (
    b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"GIF8", b"\x00\x00\x01\xba",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("060e2b34020501010d010201"),
    b"YUV4MPEG2 ", b"DKIF",
)  # fmt: skip
# A Matroska cluster, which follows the header of a file.
CLUSTER = b"\x1f\x43\xb6\x75"
# GUIDs of ASF's content encryption, extended and advanced content encryption objects.
ASF_ENCRYPTION = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"), bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
    bytes.fromhex("338505438169e6499b74ad12cb86d58c"),
)  # fmt: skip
TS_PACKET_BYTES = 188


def container_name(demuxer: str, head: bytes) -> str:
    """Return the everyday name of a container; FFmpeg names a family (`mov,mp4,m4a,3gp,3g2,mj2`)."""
    match demuxer.split(",")[0]:
        case "mov":
            return "mov" if head[8:12] == b"qt  " or head[4:8] != b"ftyp" else "mp4"
        case "matroska":
            return "webm" if b"webm" in head[:64] else "matroska"
        case "yuv4mpegpipe":
            return "y4m"
        case name:
            return name


def is_container(head: bytes) -> bool:
    """Return whether a file that FFmpeg cannot open starts like an accepted container other than mp4."""
    return (
        head.startswith(SIGNATURES)
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (
            len(head) > 2 * TS_PACKET_BYTES
            and set(head[: 2 * TS_PACKET_BYTES + 1 : TS_PACKET_BYTES]) == {0x47}
        )
    )


def is_encrypted(head: bytes) -> bool:
    """Return whether an ASF file or MPEG transport stream declares at its start that it is encrypted."""
    if any(guid in head for guid in ASF_ENCRYPTION):
        return True
    packets = [head[start : start + 4] for start in range(0, len(head) - 3, TS_PACKET_BYTES)]
    if len(packets) < 3 or any(packet[0] != 0x47 for packet in packets):
        return False
    # transport_scrambling_control; tables and stuffing in between are never scrambled.
    return sum(packet[3] & 0xC0 != 0 for packet in packets) > len(packets) // 2

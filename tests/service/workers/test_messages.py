from __future__ import annotations

import json
import os
import pickle
import select
import socket
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.clip.decoding.clips import decode_video
from service.clip.geometry import CROP_COUNTS
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodedWindows, DecodeLimits, Effort, VideoInfo, VideoSample, WindowSample
from service.clip.windowing import Window, WindowRule
from service.errors import InvalidParameter, NotAVideo, NotReady, OverLimit, RequestError, Undecodable
from service.packages.manifest import MAX_FRAMES
from service.pipeline.classification import MAX_CLIPS
from service.workers.fork_server import FORK_SERVER
from service.workers.messages import (
    MAX_MESSAGE_BYTES,
    DecodeFailure,
    DecodeRequest,
    LimitExceeded,
    Message,
    ProtocolError,
    Ready,
    Refusal,
    SlotFree,
    StillDecoding,
    TimelineDecoded,
    TimelineRequest,
    VideoDecoded,
    WindowDecoded,
    encode,
    fail,
    read_service_message,
    read_worker_message,
    refuse,
)
from tests.support.clips import numbered_clip
from tests.support.tiny_models import TWO_STREAMS

VIDEO = VideoInfo("mp4", "h264", 96, 64, 0, 1, 25.0, 0.04)
EFFORT = Effort(9, 4, "no keyframes")
SAMPLE = VideoSample(
    video=VIDEO, indices=((0, 5), (1, 6)), timestamps_s=((0.1, 1 / 3), (0.2, 0.4)), effort=EFFORT
)
DECODED = VideoDecoded(SAMPLE)
WINDOW = WindowDecoded(1, WindowSample(Window(7, 0, 1_000_000, range(9)), 9, (0, 5), (0.0, 0.2)))
TIMELINE_DECODED = TimelineDecoded(DecodedWindows(VIDEO, 3, EFFORT))
ONE_INPUT = ClipSpec(2, (InputSpec("frames", Frames.ALL, 8, 8),))
REQUEST = DecodeRequest(ONE_INPUT, 2, 3, DecodeLimits(), 4, 1.5)
TIMELINE = TimelineRequest(TWO_STREAMS, WindowRule.of(1.5, 0.7), DecodeLimits(), 3, 4, 60.0)


@pytest.mark.parametrize(
    "message",
    [Ready(("seccomp",)), DECODED, WINDOW, StillDecoding(), TIMELINE_DECODED, DecodeFailure("x")],
)
def test_service_reads_what_workers_send(message: Message) -> None:
    assert read_worker_message(encode(message)) == message


@pytest.mark.parametrize("message", [REQUEST, TIMELINE, SlotFree(2)])
def test_workers_read_what_the_service_sends(message: Message) -> None:
    assert read_service_message(encode(message)) == message


@pytest.mark.parametrize(
    "error", [InvalidParameter("a"), NotAVideo("b"), Undecodable("c"), OverLimit("pixels", 9, 8)]
)
def test_errors_of_decoding_arrive_with_their_fields(error: RequestError) -> None:
    message = read_worker_message(encode(refuse(error)))
    assert isinstance(message, Refusal | LimitExceeded)
    arrived = message.error()
    assert (type(arrived), vars(arrived)) == (type(error), vars(error))


def test_other_errors_are_failures() -> None:
    assert refuse(NotReady("why?")) == DecodeFailure("NotReady: why?")
    assert fail(ValueError("\ud800" + "x" * 5000)) == DecodeFailure("ValueError: ?" + "x" * 987)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"x",
        b"\xff",
        b"[" * MAX_MESSAGE_BYTES,
        b'{"type": "TimelineDecoded", "result": {"x": ' + b"[" * 100_000,
        b'{"type": "Ready"}',
        b'{"type": "Ready", "sandbox": ["chroot"]}',
        b'{"type": "Ready", "sandbox": [], "more": 1}',
        b'{"type": "SlotFree", "slot": 1}',
        b'{"type": "Refusal", "code": "unauthorized", "message": "x"}',
        b'{"type": "Refusal", "code": "undecodable", "message": "\xff"}',
        b'{"type": "Refusal", "code": "undecodable", "message": "' + b"x" * 1001 + b'"}',
        b'{"type": "LimitExceeded", "limit": "pixels", "value": NaN, "maximum": 1}',
        b'{"type": "LimitExceeded", "limit": "pixels", "value": 1e999, "maximum": 1}',
        pickle.dumps(DECODED),
        msgspec.msgpack.encode(DECODED),
        encode(DECODED)[:-1],
        encode(DECODED) * 2,
        encode(DECODED).replace(b"96", b'"96"'),
        encode(DECODED).replace(b"[0,5]", b"[0,5.5]"),
        encode(WINDOW).replace(b'"slot":1', b'"slot":-1'),
        encode(WINDOW).replace(b"[0,9]", b"[0,9,0]"),
        encode(WINDOW).replace(b"[0,9]", b"9"),
    ],
    ids=lambda packet: ascii(packet[:40]),
)
def test_anything_else_violates_the_protocol(packet: bytes) -> None:
    with pytest.raises(ProtocolError, match="invalid message"):
        read_worker_message(packet)


class Hostile:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def test_reading_a_message_runs_no_code(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        read_worker_message(pickle.dumps(Hostile(tmp_path / "made")))
    assert not (tmp_path / "made").exists()


NINE_BYTES_OF_PICKLE = b"r" + (2**28).to_bytes(4, "little") + b"....", b"\x8e" + (2**31).to_bytes(8, "little")
BILLION_ENTRIES = b"\xdd" + (2**30).to_bytes(4, "big")


@pytest.mark.parametrize(
    "packet",
    [
        *NINE_BYTES_OF_PICKLE,
        BILLION_ENTRIES,
        encode(DECODED).replace(b"[0,5]", b"[" + b"0," * 70_000 + b"0]"),
        encode(DECODED).replace(b"[0,5]", b"[]," * 50_000 + b"[]"),
        encode(DECODED).replace(b'"mp4"', b'"' + b"x" * 150_000 + b'"'),
        encode(TIMELINE)[:1] + b'"a":1,' * 20_000 + encode(DECODED)[1:],
    ],
    ids=lambda packet: f"{len(packet)} bytes, {packet[:8]!r}",
)
def test_a_message_takes_memory_in_proportion_to_its_size(packet: bytes) -> None:
    assert len(packet) < MAX_MESSAGE_BYTES
    tracemalloc.start()
    try:
        read_worker_message(packet)
    except ProtocolError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000 + 100 * len(packet)


@pytest.mark.parametrize(("frames", "share"), [(64, 0.1), (MAX_FRAMES, 1.0)])
def test_the_largest_answer_fits(frames: int, share: float) -> None:
    clips, crops = MAX_CLIPS, max(CROP_COUNTS)
    spec = ClipSpec(frames, (InputSpec("frames", Frames.ALL, 8, 8),))
    decoded = decode_video(numbered_clip(frames=70), spec, clips=clips, crops=crops)
    times = tuple(tuple(599 + 1 / (3 + index) for index in row) for row in decoded.indices)
    last = tuple((DecodeLimits().max_frames - 1,) * frames for _ in range(clips))
    sample = VideoSample(video=decoded.video, indices=last, timestamps_s=times, effort=decoded.effort)
    assert len(encode(VideoDecoded(sample))) < MAX_MESSAGE_BYTES * share


def test_an_answer_must_have_the_shape_that_was_requested() -> None:
    assert REQUEST.answered_by(DECODED)
    assert not REQUEST.answered_by(TIMELINE_DECODED)
    for rows in (((0, 5),), ((0, 5), (1,)), ((0, 5), (1, 6), (2, 7)), ()):
        assert not REQUEST.answered_by(VideoDecoded(replace(SAMPLE, indices=rows)))
        times = tuple(tuple(map(float, row)) for row in rows)
        assert not REQUEST.answered_by(VideoDecoded(replace(SAMPLE, timestamps_s=times)))


def test_a_window_must_have_the_shape_and_a_slot_that_were_requested() -> None:
    request = msgspec.structs.replace(TIMELINE, spec=ONE_INPUT, slots=2)
    assert request.answered_by(TIMELINE_DECODED)
    assert not request.answered_by(DECODED)
    assert request.has_window(WINDOW)
    assert not request.has_window(WindowDecoded(2, WINDOW.sample))
    assert not request.has_window(WindowDecoded(1, replace(WINDOW.sample, indices=(0,))))
    assert not request.has_window(WindowDecoded(1, replace(WINDOW.sample, timestamps_s=(0.0, 0.1, 0.2))))


def test_messages_are_readable_json() -> None:
    assert json.loads(encode(Refusal("undecodable", "no frame"))) == {
        "type": "Refusal", "code": "undecodable", "message": "no frame",
    }  # fmt: skip


def test_a_worker_ends_when_the_service_closes_the_channel() -> None:
    process, channel = FORK_SERVER.start_worker(memory_mb=512)
    with channel:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        assert poll.poll(30_000)
        assert read_worker_message(channel.recv(1000)) == Ready(("seccomp", "landlock"))
        assert channel.type == socket.SOCK_SEQPACKET
    assert process.exit_status() == 0

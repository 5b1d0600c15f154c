"""Messages between the service and its decode workers.

A message is one JSON document in one packet of a `SOCK_SEQPACKET` socket. A worker decodes hostile bytes and
may be under their control, so the format matters: reading JSON into typed structs runs no code and takes
memory in proportion to the packet. Pickle can call functions, and both pickle and MessagePack allocate any
length that a message claims.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.clip.spec import ClipSpec
from service.clip.video import DecodedWindows, DecodeLimits, VideoSample, WindowSample
from service.clip.windowing import WindowRule
from service.errors import InvalidParameter, NotAVideo, OverLimit, RequestError, Undecodable

# In both directions. An answer for 10 clips of 64 frames takes a twentieth of this, one for 10 clips of 1024
# frames, the most that a manifest allows, up to 290 kB.
MAX_MESSAGE_BYTES = 320_000
MAX_TEXT = 1000

Mechanism = Literal["seccomp", "landlock"]
ErrorCode = Literal["invalid_parameter", "not_a_video", "undecodable"]
Count = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]

# The decoding errors that consist of only a message.
PLAIN_ERRORS: dict[ErrorCode, type[RequestError]] = {
    "invalid_parameter": InvalidParameter,
    "not_a_video": NotAVideo,
    "undecodable": Undecodable,
}


class ProtocolError(Exception):
    """A worker sent a message that the protocol does not allow."""


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages."""


class VideoDecoded(Message, frozen=True):
    """The frames of all views are in shared memory."""

    sample: VideoSample


class TimelineDecoded(Message, frozen=True):
    """The answer to a `TimelineRequest`: all windows were sent."""

    result: DecodedWindows


class DecodeRequest(Message, frozen=True):
    """Decode the `clips` x `crops` views of a video.

    Two descriptors are sent with it: the video's file, and shared memory with a `FrameLayout` of one slot.
    `threads` is the number of cores to use. The kernel ends the worker after `cpu_s` of processor time.
    """

    spec: ClipSpec
    clips: int
    crops: int
    limits: DecodeLimits
    threads: int
    cpu_s: float

    @property
    def views(self) -> int:
        """Number of views, the rows of each input array."""
        return self.clips * self.crops

    def answered_by(self, message: Message) -> bool:
        """Return whether a message is an answer with as many clips and frames as requested."""
        return isinstance(message, VideoDecoded) and all(
            [len(row) for row in rows] == [self.spec.frames] * self.clips
            for rows in (message.sample.indices, message.sample.timestamps_s)
        )


class TimelineRequest(Message, frozen=True):
    """Decode the windows of a video, from number `first` on.

    The descriptors are those of a `DecodeRequest`, but the `FrameLayout` has `slots` slots of one view each.
    The worker fills them in turn and sends a `WindowDecoded` for each. It reuses a slot when the service has
    sent a `SlotFree` for it. `cpu_s` is the processor time for the whole video.
    """

    spec: ClipSpec
    rule: WindowRule
    limits: DecodeLimits
    first: int
    slots: int
    cpu_s: float

    def answered_by(self, message: Message) -> bool:
        """Return whether a message is the answer; `has_window` checks the windows before it."""
        return isinstance(message, TimelineDecoded)

    def has_window(self, window: WindowDecoded) -> bool:
        """Return whether a window has as many frames as requested, and a slot of the layout."""
        lengths = {len(window.sample.indices), len(window.sample.timestamps_s)}
        return lengths == {self.spec.frames} and window.slot < self.slots


class SlotFree(Message, frozen=True):
    """The service has copied the window in `slot`."""

    slot: int


class Ready(Message, frozen=True):
    """A worker's first message: it is in its sandbox, with these kernel mechanisms active."""

    sandbox: tuple[Mechanism, ...]


class WindowDecoded(Message, frozen=True):
    """The frames of a window are in `slot`."""

    slot: Count
    sample: WindowSample


class StillDecoding(Message, frozen=True):
    """A heartbeat: frames are being decoded, but no window is complete."""


class Refusal(Message, frozen=True):
    """The video cannot be decoded."""

    code: ErrorCode
    message: Text

    def error(self) -> RequestError:
        """The error for the caller."""
        return PLAIN_ERRORS[self.code](self.message)


class LimitExceeded(Message, frozen=True):
    """The video exceeds a limit. See `OverLimit`."""

    limit: Text
    value: float
    maximum: float

    def error(self) -> RequestError:
        """The error for the caller."""
        return OverLimit(self.limit, self.value, self.maximum)


class DecodeFailure(Message, frozen=True):
    """The worker caught an exception that is not a `RequestError`; `error` describes it, for the log."""

    error: Text


ServiceMessage = DecodeRequest | TimelineRequest | SlotFree
WorkerMessage = (
    Ready
    | VideoDecoded
    | WindowDecoded
    | StillDecoding
    | TimelineDecoded
    | Refusal
    | LimitExceeded
    | DecodeFailure
)


def _encode_range(value: object) -> list[int]:
    """Encode `Window.frames`, whose type msgspec does not know."""
    assert isinstance(value, range)
    return [value.start, value.stop]


def _decode_range(kind: type, value: object) -> range:
    assert kind is range
    return range(*msgspec.convert(value, tuple[int, int]))


encode = msgspec.json.Encoder(enc_hook=_encode_range).encode
_from_service = msgspec.json.Decoder(ServiceMessage)
_from_worker = msgspec.json.Decoder(WorkerMessage, dec_hook=_decode_range)


def read_service_message(packet: bytes) -> ServiceMessage:
    """Decode a message in a worker."""
    return _from_service.decode(packet)


def read_worker_message(packet: bytes) -> WorkerMessage:
    """Decode a message in the service.

    Raises:
        ProtocolError: the packet is not a valid message.
    """
    try:
        return _from_worker.decode(packet)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ProtocolError(f"invalid message: {exc}") from exc


def refuse(error: RequestError) -> Refusal | LimitExceeded | DecodeFailure:
    """Return the message for an error that decoding raised."""
    if isinstance(error, OverLimit):
        return LimitExceeded(error.limit, error.value, error.maximum)
    for code in PLAIN_ERRORS:
        if code == error.code:
            return Refusal(code, error.message[:MAX_TEXT])
    return fail(error)


def fail(error: Exception) -> DecodeFailure:
    """Return the message for an unexpected exception."""
    text = f"{type(error).__name__}: {error}"[:MAX_TEXT]
    return DecodeFailure(text.encode(errors="replace").decode())

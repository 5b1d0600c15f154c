"""The slots and messages of a worker that decodes a timeline."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from service.clip.video import DecodeLimits, WindowSample
from service.clip.windowing import Window, WindowRule
from service.workers import decode_worker
from service.workers.decode_worker import HEARTBEAT_S, WindowSlots
from service.workers.messages import (
    MAX_MESSAGE_BYTES,
    Message,
    SlotFree,
    StillDecoding,
    TimelineRequest,
    WindowDecoded,
    encode,
    read_worker_message,
)
from service.workers.shared_memory import FrameLayout, shared_memory
from tests.support.tiny_models import TWO_STREAMS

REQUEST = TimelineRequest(TWO_STREAMS, WindowRule.of(1, 1), DecodeLimits(), 0, 2, 60.0)
LAYOUT = FrameLayout(TWO_STREAMS, views=1, slots=2)
SAMPLE = WindowSample(Window(0, 0, 1_000_000, range(9)), 1, (0, 5), (0.0, 0.2))


@contextmanager
def slots_of_a_worker() -> Iterator[tuple[WindowSlots, socket.socket, mmap.mmap]]:
    """The slots, the service's end of the channel, and the service's view of the memory."""
    service, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    service.setblocking(False)
    worker.settimeout(20)
    with service, worker, shared_memory(LAYOUT.size) as (frames, memory):
        yield WindowSlots(REQUEST, frames, worker), service, memory


def received(service: socket.socket) -> list[Message]:
    """The messages that have arrived."""
    messages: list[Message] = []
    while True:
        try:
            packet = service.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return messages
        messages.append(read_worker_message(packet))


def test_windows_take_the_slots_in_turn_and_then_those_that_the_service_frees() -> None:
    with slots_of_a_worker() as (slots, service, memory):
        for grey in (1, 2):
            slots.arrays()["big"][:] = grey
            slots.hand_out(SAMPLE)
        service.send(encode(SlotFree(1)))
        slots.arrays()["big"][:] = 3  # waits for the message
        slots.hand_out(SAMPLE)
        assert received(service) == [WindowDecoded(slot, SAMPLE) for slot in (0, 1, 1)]
        assert [int(LAYOUT.arrays(memory, slot)["big"].min()) for slot in (0, 1)] == [1, 3]


def test_heartbeats_are_sent_only_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(decode_worker, "time", SimpleNamespace(monotonic=lambda: now.s))
    with slots_of_a_worker() as (slots, service, _):
        counts = []
        for silence in (0.9, 1.1, 1.9, 2.2):
            now.s = silence * HEARTBEAT_S
            slots.progress()
            counts.append(len(received(service)))
        assert counts == [0, 1, 0, 1]
        now.s = 3 * HEARTBEAT_S
        slots.arrays()
        slots.hand_out(SAMPLE)  # a window says the same as a heartbeat
        now.s = 3.9 * HEARTBEAT_S
        slots.progress()
        assert StillDecoding() not in received(service)

from __future__ import annotations

import os
import pickle
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from service.clip.video import VideoInfo
from service.errors import NotAVideo, OverLimit
from service.workers.decode_worker import Found, Ready
from service.workers.fork_server import FORK_SERVER
from service.workers.worker_messages import unpickled

FOUND = Found(VideoInfo("mp4", "h264", 96, 64, 0, 1, 25.0, 0.04), ((0,),), ((0.0,),))


class Hostile:
    """Whoever unpickles this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def believed(message: object) -> Any:
    return unpickled(pickle.dumps(message))


@pytest.mark.parametrize("message", [FOUND, Ready(seccomp=True, landlock=False)])
def test_what_workers_say_is_believed(message: object) -> None:
    assert believed(message) == message


def test_errors_are_believed_with_their_fields() -> None:
    error = believed(OverLimit("pixels", 9, 8))
    assert (type(error), error.limit, error.value, error.maximum) == (OverLimit, "pixels", 9, 8)
    assert believed(NotAVideo("text")).message == "text"
    assert isinstance(believed(RuntimeError("an accident")), RuntimeError)


@pytest.mark.parametrize(
    "message",
    [os.system, print, eval, Path("x"), SystemExit(), Hostile, OverLimit.mro, getattr],
    ids=["function", "builtin", "eval", "object", "no ordinary error", "class", "attribute", "getattr"],
)
def test_nothing_else_is_looked_up(message: object) -> None:
    with pytest.raises(pickle.PicklingError, match="a decode worker may not send"):
        believed(message)


@pytest.mark.parametrize("message", [b"x", b"\x80", b"\x80\x04\x95" + b"\xff" * 20, b"." * 9, b"I1\n"])
def test_bytes_that_are_no_message_are_told_as_such(message: bytes) -> None:
    with pytest.raises(pickle.PicklingError, match="cannot be read"):
        unpickled(message)


def test_a_hostile_message_is_not_carried_out(tmp_path: Path) -> None:
    with pytest.raises(pickle.PicklingError):
        believed(Hostile(tmp_path / "made"))
    assert not (tmp_path / "made").exists()


def test_a_worker_ends_when_the_service_hangs_up() -> None:
    process, channel = FORK_SERVER.start_worker(memory_mb=512)
    with channel:
        assert select.select([channel], [], [], 30)[0]
        assert isinstance(unpickled(channel.recv(1000)), Ready)
        assert channel.type == socket.SOCK_SEQPACKET
    assert process.exit_status() == 0

from __future__ import annotations

import io
import os
import pickle
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from pebble import ProcessPool
from pebble.common.types import Result, ResultStatus
from pebble.pool.process import TaskResult

from service.clip.video import VideoInfo
from service.decode_worker import Found
from service.errors import NotAVideo, OverLimit
from service.worker_context import CONTEXT, CheckedUnpickler, start_fork_server

FOUND = Found(VideoInfo("mp4", "h264", 96, 64, 0, 1, 25.0, 0.04), ((0,),), ((0.0,),))


class Hostile:
    """Whoever unpickles this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def unpickled(message: object) -> Any:
    return CheckedUnpickler(io.BytesIO(pickle.dumps(message))).load()


def test_what_decoding_finds_is_believed() -> None:
    result = unpickled(TaskResult(1, Result(ResultStatus.SUCCESS, FOUND)))
    assert (result.task, result.result.value) == (1, FOUND)


def test_errors_are_believed_with_their_fields() -> None:
    error = unpickled(OverLimit("pixels", 9, 8))
    assert (type(error), error.limit, error.value, error.maximum) == (OverLimit, "pixels", 9, 8)
    assert unpickled(NotAVideo("text")).message == "text"
    assert isinstance(unpickled(RuntimeError("an accident")), RuntimeError)


@pytest.mark.parametrize(
    "message",
    [os.system, print, eval, Path("x"), SystemExit(), Hostile, OverLimit.mro],
    ids=["function", "builtin", "eval", "object", "no ordinary error", "class", "attribute"],
)
def test_nothing_else_is_looked_up(message: object) -> None:
    with pytest.raises(pickle.PicklingError, match="a decode worker may not send"):
        unpickled(message)


class NamedByGetattr:
    """Pickles as Python before 3.11.4 pickles a member of an enumeration."""

    def __init__(self, kind: type, name: str) -> None:
        self.named = kind, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self.named


def test_members_of_enumerations_are_believed_in_the_form_of_every_python() -> None:
    assert unpickled(NamedByGetattr(ResultStatus, "SUCCESS")) is ResultStatus.SUCCESS


@pytest.mark.parametrize("kind", [Found, ResultStatus])
def test_other_attributes_are_not_looked_up(kind: type) -> None:
    with pytest.raises((pickle.PicklingError, KeyError)):
        unpickled(NamedByGetattr(kind, "__init__"))


def answer_hostile(folder: Path) -> Hostile:
    return Hostile(folder)


def answer_plain(folder: Path) -> str:
    return folder.name


@pytest.fixture
def pool() -> Any:
    start_fork_server()
    pool: Any = ProcessPool(1, context=CONTEXT)  # pebble's types leave out `stop`
    yield pool
    pool.stop()
    pool.join()


def test_a_hostile_answer_of_a_real_worker_is_not_carried_out(pool: Any, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert pool.schedule(answer_plain, args=(folder,)).result(timeout=60) == "made"
    with pytest.raises(BrokenProcessPool):
        pool.schedule(answer_hostile, args=(folder,)).result(timeout=60)
    assert not folder.exists()

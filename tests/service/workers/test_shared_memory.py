from __future__ import annotations

import errno
import fcntl
import io
import os
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadRequest
from service.workers.shared_memory import FrameLayout, opened_video, shared_memory
from tests.support.tiny_models import TWO_STREAMS

VIEWS = 3


def test_arrays_of_all_slots_fill_the_memory_without_overlapping() -> None:
    layout = FrameLayout(TWO_STREAMS, VIEWS, slots=2)
    shapes = {item.name: (VIEWS, *item.shape(TWO_STREAMS.frames)) for item in TWO_STREAMS.inputs}
    assert layout.size == 2 * sum(int(np.prod(shape)) for shape in shapes.values())
    with shared_memory(layout.size) as (descriptor, memory):
        os.pwrite(descriptor, bytes(number % 251 for number in range(layout.size)), 0)
        slots = [layout.arrays(memory, slot) for slot in (0, 1)]
        assert [{name: array.shape for name, array in arrays.items()} for arrays in slots] == [shapes] * 2
        read = b"".join(array.tobytes() for arrays in slots for array in arrays.values())
        assert read == memory[:]
        assert not any(array.flags.writeable for arrays in slots for array in arrays.values())
        assert [array.tobytes() for array in layout.arrays(memory).values()] == [
            array.tobytes() for array in slots[0].values()
        ]


def test_there_is_one_slot_by_default() -> None:
    assert 2 * FrameLayout(TWO_STREAMS, 1).size == FrameLayout(TWO_STREAMS, 1, slots=2).size


def test_memory_for_frames_cannot_change_its_size() -> None:
    with shared_memory(4096) as (descriptor, memory):
        assert len(memory) == 4096
        for size in (4095, 4097):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
        os.pwrite(descriptor, b"written by a worker", 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert memory[:7] == b"written"  # the mapping outlives the block


def test_video_in_memory_can_be_neither_written_nor_resized() -> None:
    with opened_video(b"video") as descriptor:
        assert os.pread(descriptor, 100, 0) == b"video"
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"other", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 10)
        assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_files_are_opened_with_their_own_position(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"video")
    with path.open("rb") as file:
        file.read(3)
        with opened_video(file) as descriptor:
            assert os.read(descriptor, 100) == b"video"
        assert file.read() == b"eo"
    with opened_video(path) as descriptor:
        assert os.read(descriptor, 100) == b"video"
        with pytest.raises(io.UnsupportedOperation), open(descriptor, "wb", closefd=False) as file:
            file.read()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(BadRequest, match=r"^The video is not a regular file\.$"), opened_video(path):
            pass
    with (
        pytest.raises(BadRequest, match=r"^The video cannot be opened: No such file or directory\.$"),
        opened_video(tmp_path / "missing"),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_lack_of_resources_is_not_the_fault_of_the_path(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)), opened_video(tmp_path):
        pass

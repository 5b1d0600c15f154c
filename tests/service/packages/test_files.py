"""Atomic writing: a reader sees the old file or the new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.packages.files import atomic_write


def test_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")

    def fail_while_writing() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_while_writing()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_write(tmp_path / "atomic") as file:
        file.write(b"content")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")

    def write_to_a_full_disk() -> None:
        with Path("/dev/full").open("wb", buffering=0) as full, atomic_write(path) as file:
            os.dup2(full.fileno(), file.fileno())
            file.write(b"new" * 10_000)

    with pytest.raises(OSError, match="No space left"):
        write_to_a_full_disk()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

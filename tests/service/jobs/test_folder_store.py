"""What happens only in a folder: other processes that change it at the same time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.jobs.folder_store import FolderStore
from tests.support.job_places import Place, added


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.anyio
async def test_key_of_a_job_that_is_deleted_in_this_moment_is_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store, place.opened() as other:
        assert isinstance(store, FolderStore)
        assert isinstance(other, FolderStore)
        earlier = await added(store, key="one")
        select = store._rows

        def after_a_deletion(statement: str, *values: Any) -> list[sqlite3.Row]:
            other._delete(earlier.id)
            return select(statement, *values)

        monkeypatch.setattr(store, "_rows", after_a_deletion)
        job = await added(store, key="one")
        assert job.id != earlier.id
        assert place.left() == [job.id]


@pytest.mark.anyio
async def test_files_that_disappear_do_not_stop_the_upkeep(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store:
        ids = [(await store.keep_video(b"video"))[0] for _ in range(3)]
        assert isinstance(place.address, Path)
        for job_id in ids:
            os.utime(place.address / "videos" / job_id, (0, 0))
        listed = Path.iterdir

        def with_one_that_is_gone(folder: Path) -> Iterator[Path]:
            yield folder / "gone"
            yield from listed(folder)

        monkeypatch.setattr(Path, "iterdir", with_one_that_is_gone)
        await store.upkeep()
    monkeypatch.undo()
    assert place.left() == []

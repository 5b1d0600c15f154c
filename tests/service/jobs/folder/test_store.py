"""What happens only in a folder: other processes change it at the same time, and claims are cut short."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import StorageFull
from service.jobs.folder.store import FolderStore
from service.jobs.job import Job, JobState
from tests.support.full_disk import full_disk
from tests.support.job_places import Place, added


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.anyio
async def test_key_of_a_job_deleted_at_this_moment_is_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store, place.opened() as other:
        assert isinstance(store, FolderStore)
        assert isinstance(other, FolderStore)
        earlier = await added(store, key="one")
        select = store._database._rows

        def after_a_deletion(statement: str, *values: Any) -> list[sqlite3.Row]:
            other._delete(earlier.id)
            return select(statement, *values)

        monkeypatch.setattr(store._database, "_rows", after_a_deletion)
        job = await added(store, key="one")
        assert job.id != earlier.id
        assert place.left() == [job.id]


@pytest.mark.anyio
async def test_claim_that_is_cancelled_in_the_middle_is_no_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store:
        assert isinstance(store, FolderStore)
        job = await added(store)
        change = store._database.change
        begun, cancelled, changed = threading.Event(), threading.Event(), threading.Event()

        def slow_change(*arguments: Any) -> bool:
            begun.set()
            cancelled.wait(10)
            found = change(*arguments)
            changed.set()
            return found

        async def claim() -> None:
            async with store.claimed():
                raise AssertionError

        monkeypatch.setattr(store._database, "change", slow_change)
        claiming = asyncio.create_task(claim())
        await asyncio.to_thread(begun.wait, 10)
        claiming.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        await asyncio.wait([claiming])
        assert claiming.cancelled()
        await asyncio.to_thread(changed.wait, 10)
        found = await store.get(job.id)
        assert found is not None
        assert (found.state, found.attempts) == (JobState.QUEUED, 0)


@pytest.mark.anyio
async def test_job_that_another_process_gives_back_meanwhile_keeps_its_delay_and_attempts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store, place.opened() as other:
        assert isinstance(store, FolderStore)
        await added(store)
        select = store._database._select
        listed, given_back = threading.Event(), threading.Event()

        def slow_select(*arguments: Any) -> list[Job]:
            found = select(*arguments)
            listed.set()
            given_back.wait(10)
            return found

        async def claim() -> Job | None:
            async with store.claimed() as job:
                return job

        monkeypatch.setattr(store._database, "_select", slow_select)
        claiming = asyncio.create_task(claim())
        await asyncio.to_thread(listed.wait, 10)
        async with other.claimed() as job:
            assert job is not None
            await other.retry(job, 5.0, counted=True)
        given_back.set()
        assert await claiming is None
        place.pass_time(5)
        claimed = await claim()
        assert claimed is not None
        assert claimed.attempts == 2


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


@pytest.mark.anyio
async def test_job_that_does_not_fit_on_the_disk_is_refused_as_such_and_leaves_no_video(place: Place) -> None:
    async with place.opened() as store:
        assert isinstance(store, FolderStore)
        before = await added(store)
        [pages] = store._database._connection.execute("PRAGMA page_count").fetchone()
        store._database._connection.execute(f"PRAGMA max_page_count = {pages}")  # as if the disk were full
        with pytest.raises(StorageFull):
            await added(store, padding="x" * 10_000)  # more than a page
        assert place.left() == [before.id]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "size", [1_000_000, 10], ids=["while it is written", "while its last bytes are synced"]
)
async def test_result_that_does_not_fit_on_the_disk_leaves_no_file(place: Place, size: int) -> None:
    async with place.opened() as store:
        with full_disk(after_bytes=5), pytest.raises(StorageFull, match="disk for jobs"):
            async with store.writing_result("one") as result:
                await result.write(bytes(size))
        assert isinstance(place.address, Path)
        assert list((place.address / "results").iterdir()) == []

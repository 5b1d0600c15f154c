"""The service behind the routes: its readiness, its keys, its rescans, and what its start depends on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from service.errors import BlvnetError, ModelNotFound, NotReady
from service.http.app import create_app
from service.http.service import Service
from service.settings import load_settings
from tests.support.tiny_models import write_package

pytestmark = pytest.mark.anyio


def service_with(models: Path, **settings: Any) -> Service:
    service = create_app(load_settings({"models": models, "decode_workers": 1, **settings})).state.service
    return cast("Service", service)


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_service_is_ready_from_the_end_of_its_start_until_it_leaves(tiny_models: Path) -> None:
    service = service_with(tiny_models)
    assert service.problem() == service.recognizer.problem() is not None
    service.start()
    await service.started()
    assert service.problem() is None
    service.leave()
    assert service.problem() == "The service is shutting down."
    assert service.recognizer.model("tiny").manifest.name == "tiny"  # requests are still accepted
    await service.drain(grace_s=1.0)
    with pytest.raises(NotReady):
        async with service.recognizer.accept():
            pass
    await service.stop()


async def test_service_that_cannot_start_says_why_and_stops(tmp_path: Path) -> None:
    service = service_with(tmp_path)
    service.start()
    with pytest.raises(BlvnetError, match="no model package"):
        await service.started()
    assert "no model package" in (service.problem() or "")
    await service.stop()


async def test_service_can_be_stopped_before_it_was_started(tiny_models: Path) -> None:
    await service_with(tiny_models).stop()


async def test_reload_takes_the_keys_of_the_files_and_new_packages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models, keys, admin = tmp_path / "models", tmp_path / "keys", tmp_path / "admin"
    write_package(models)
    keys.write_text("old")
    admin.write_text("first-admin")
    service = service_with(models, api_keys_file=keys, admin_key_file=admin)
    service.start()
    await service.started()
    try:
        write_package(models, "walk")
        keys.write_text("new,newer")
        admin.write_text("second-admin")
        service.reload()
        assert [service.keys.find(key) is not None for key in ("old", "new", "newer")] == [False, True, True]
        assert [service.admin_key.matches(key) for key in ("first-admin", "second-admin")] == [False, True]
        async with asyncio.timeout(30):
            while "walk" not in service.recognizer.models.registry.names():
                await asyncio.sleep(0.01)
            while not [record for record in caplog.records if record.getMessage() == "models are rescanned"]:
                await asyncio.sleep(0.01)
        [read] = [record for record in caplog.records if record.getMessage() == "keys are read again"]
        assert read.__dict__["keys"] == 2
        [rescanned] = [record for record in caplog.records if record.getMessage() == "models are rescanned"]
        assert rescanned.__dict__["states"] == {"tiny/1": "ready", "walk/1": "ready"}
        keys.unlink()
        service.reload()
        assert service.keys.find("new") is not None
        assert any(text.startswith("the keys stay as they are: ") for text in messages(caplog, logging.ERROR))
    finally:
        await service.stop()


async def test_rescan_waits_for_the_start_and_does_nothing_after_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_package(tmp_path)
    service = service_with(tmp_path)
    service.rescan()
    await asyncio.sleep(0.01)
    assert "models are rescanned" not in messages(caplog, logging.INFO)
    service.start()
    await service.started()
    async with asyncio.timeout(30):
        while "models are rescanned" not in messages(caplog, logging.INFO):
            await asyncio.sleep(0.01)
    await service.stop()
    caplog.clear()
    write_package(tmp_path, "walk")
    service.rescan()
    await asyncio.sleep(0.05)
    assert messages(caplog, logging.INFO) == []
    with pytest.raises((NotReady, ModelNotFound)):
        service.recognizer.model("walk")


async def test_failed_rescan_is_logged(
    tiny_models: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_with(tiny_models)
    service.start()
    await service.started()

    async def fail() -> None:
        raise ValueError("by mistake")

    monkeypatch.setattr(service.recognizer.models, "rescan", fail)
    service.rescan()
    await asyncio.sleep(0.05)
    [failed] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failed.getMessage() == "models cannot be rescanned"
    assert failed.exc_info is not None
    assert service.problem() is None
    await service.stop()


async def test_service_without_a_folder_to_teach_in_serves_all_else(
    tiny_models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    service = service_with(tiny_models, teach_dir=tmp_path / "file" / "taught")
    assert service.teacher is None
    assert messages(caplog, logging.WARNING)[0].startswith("models cannot be taught: ")
    taught = service_with(tiny_models, teach_dir=tmp_path / "taught")
    assert taught.teacher is not None
    taught.teacher.close()


@pytest.mark.parametrize(("cache_mb", "has_cache"), [(0, False), (1, True)])
def test_optional_parts_follow_the_settings(tiny_models: Path, cache_mb: int, has_cache: bool) -> None:
    service = service_with(tiny_models, cache_mb=cache_mb, max_upload_mb=3, request_timeout_s=7)
    assert (service.cache is not None) is has_cache
    assert (service.jobs, service.teacher) == (None, None)
    assert (service.video_limits.max_bytes, service.video_limits.timeout_s) == (3_000_000, 7)
    assert service.body_memory.free_bytes == 4 * 3_000_000  # four of the largest bodies

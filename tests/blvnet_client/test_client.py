"""Both clients with a server that answers: sources, results and refused videos."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import service.client
from blvnet_client import (
    AsyncClient,
    Client,
    NotFoundError,
    TimelineResult,
    VideoError,
    WindowResult,
)
from blvnet_client.results import (
    ClassifyResult,
    ModelDescription,
    ProblemDocument,
    SampledImage,
    ScoresOverTime,
    VideoProperties,
)
from service.clip.video import VideoInfo
from service.http.schemas.classify import ClassifyAnswer
from service.http.schemas.common import Problem
from service.http.schemas.models import ModelInfo
from service.http.schemas.timeline import TimelineEnd, TimelineWindow
from service.pipeline.classification import Evidence
from service.pipeline.frame_images import FrameImage
from tests.support.server import RunningServer
from tests.support.tiny_models import colour_clip


@pytest.fixture(scope="module")
def long_clip() -> bytes:
    """Six seconds of red and green."""
    return colour_clip((255, 0, 0), (0, 255, 0), frames=150)


def test_client_has_every_field_of_the_documents() -> None:
    pairs: list[tuple[Any, Any]] = [
        (ClassifyAnswer, ClassifyResult),
        (TimelineWindow, WindowResult),
        (TimelineEnd, TimelineResult),
        (ModelInfo, ModelDescription),
        (Problem, ProblemDocument),
        (VideoInfo, VideoProperties),
        (Evidence, ScoresOverTime),
        (FrameImage, SampledImage),
    ]
    for served, received in pairs:
        fields = served.model_fields if issubclass(served, BaseModel) else served.__dataclass_fields__
        assert set(fields) - set(received.__struct_fields__) == set()


def test_service_client_is_an_alias() -> None:
    assert service.client.Client is Client


def note(progress: list[tuple[int, int | None]], sent: int, size: int | None) -> None:
    progress.append((sent, size))


def sources(clip: bytes, path: Path) -> dict[str, Callable[[], Any]]:
    path.write_bytes(clip)
    return {
        "path": lambda: path,
        "text": lambda: str(path),
        "bytes": lambda: clip,
        "memoryview": lambda: memoryview(clip),
        "file": lambda: io.BytesIO(clip),
        "iterator": lambda: iter([clip[:100], clip[100:]]),
    }


def test_every_source_gives_the_same_label(server: RunningServer, red_clip: bytes, tmp_path: Path) -> None:
    made = sources(red_clip, tmp_path / "red.mp4")
    with Client(server.url) as client:
        for name, make in made.items():
            progress: list[tuple[int, int | None]] = []
            result = client.classify(make(), top_k=1, on_progress=partial(note, progress))
            assert (result.best.label, len(result.predictions)) == ("red", 1), name
            assert progress[-1] == (len(red_clip), None if name == "iterator" else len(red_clip)), name

    async def classify_all() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield red_clip[:100]
            yield red_clip[100:]

        async with AsyncClient(server.url) as client:
            for make in [*made.values(), pieces]:
                assert (await client.classify(make())).best.label == "red"

    asyncio.run(classify_all())


def test_pipe_and_part_of_a_file_are_sources(server: RunningServer, red_clip: bytes, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_bytes, args=(red_clip,))
    writer.start()
    (padded := tmp_path / "padded").write_bytes(b"0123456789" + red_clip)
    with Client(server.url) as client, padded.open("rb") as file:
        assert client.classify(pipe).best.label == "red"
        file.seek(10)
        assert client.classify(file).best.label == "red"
    writer.join()


def test_models_readiness_and_request_id(server: RunningServer, red_clip: bytes) -> None:
    with Client(server.url) as client:
        assert client.classify(red_clip, request_id="mine-1", evidence=True).request_id == "mine-1"
        found = client.models()
        assert ([model.name for model in found.models], client.model("tiny").state) == (["tiny"], "ready")
        assert found.limits["max_upload_bytes"] == 2_000_000
        assert client.ready()
        with pytest.raises(NotFoundError):
            client.model("a/b")

    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            assert await client.models() == found
            assert (await client.model("tiny")).labels == ("red", "green", "blue")
            assert await client.ready()

    asyncio.run(ask())


def test_refused_video_is_a_typed_error(server: RunningServer) -> None:
    words = b"just words. " * 100
    with Client(server.url) as client, pytest.raises(VideoError) as caught:
        client.classify(words, request_id="mine-2")
    error = caught.value
    assert (error.code, error.status, error.request_id) == ("not_a_video", 415, "mine-2")

    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(VideoError):
                await client.classify(words)
            with pytest.raises(NotFoundError):
                [line async for line in client.timeline(words, model="nonesuch")]

    asyncio.run(ask())


def test_timeline_yields_windows_and_the_summary(server: RunningServer, long_clip: bytes) -> None:
    with Client(server.url) as client:
        *windows, end = client.timeline(long_clip, window_s=1.5)
    assert [window.window for window in windows if isinstance(window, WindowResult)] == [0, 1, 2, 3]
    assert isinstance(end, TimelineResult)
    assert [segment.label for segment in end.summary.segments] == ["red", "green"]

    async def ask() -> list[object]:
        async with AsyncClient(server.url) as client:
            return [line async for line in client.timeline(long_clip, window_s=1.5)]

    assert asyncio.run(ask())[:4] == windows

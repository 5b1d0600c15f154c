"""Both clients with servers that are overloaded or restart, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from blvnet_client import (
    AsyncClient,
    AuthenticationError,
    BusyError,
    Client,
    ConnectionFailed,
    RetryPolicy,
    TimelineResult,
    WindowResult,
)
from tests.blvnet_client.proxy import Cut, cutting_proxy
from tests.support.long_clips import long_clip
from tests.support.server import PATIENCE_S, RunningServer, key_in_use, running_server
from tests.support.tiny_models import colour_clip

ONCE = RetryPolicy(budget_s=0)
QUICK = RetryPolicy(budget_s=PATIENCE_S, first_wait_s=0.02, longest_wait_s=0.1)
OURS, THEIRS = "open-sesame", "another-key"


@pytest.fixture(scope="module")
def small(tiny_models: Path) -> Iterator[RunningServer]:
    """A server with room for one request, and for one request at a time of each key."""
    keys = f"{OURS},{THEIRS}"
    with running_server(tiny_models, QUEUE_LIMIT=1, API_KEYS=keys, KEY_REQUESTS_AT_ONCE=1) as running:
        yield running


@contextmanager
def full(server: RunningServer) -> Iterator[Callable[[], None]]:
    """Fill the queue with another caller's timeline until the yielded function is called."""
    with Client(server.url, THEIRS) as client:
        windows = client.timeline(long_clip(), window_s=0.5)
        next(windows)
        yield client.close


def refusals(server: RunningServer, reason: str) -> float:
    return server.metric("blvnet_rejected_total", reason=reason)


@contextmanager
def after_refusals(server: RunningServer, reason: str, count: int, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` as soon as the server has refused `count` requests of the block."""
    before = refusals(server, reason)

    def wait_and_act() -> None:
        server.wait_for(lambda: refusals(server, reason) >= before + count, f"{count} refusals")
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_key_is_sent(small: RunningServer, red_clip: bytes) -> None:
    with Client(small.url) as stranger, pytest.raises(AuthenticationError):
        stranger.classify(red_clip)
    with Client(small.url, OURS) as client:
        assert client.classify(red_clip).model.name == "tiny"


def test_limited_key_is_asked_again_after_the_stated_time(small: RunningServer, red_clip: bytes) -> None:
    with key_in_use(small, OURS) as connection:
        with Client(small.url, OURS, retries=ONCE) as impatient, pytest.raises(BusyError) as caught:
            impatient.classify(red_clip)
        assert caught.value.retry_after_s is not None
        with (
            after_refusals(small, "rate_limited", 1, connection.close),
            Client(small.url, OURS, retries=QUICK) as client,
        ):
            began = time.monotonic()
            assert client.classify(red_clip).best.label == "red"
            assert time.monotonic() - began >= caught.value.retry_after_s


def test_full_queue_ends_the_retry_budget(small: RunningServer, red_clip: bytes) -> None:
    budget_s = 2.5
    with full(small), Client(small.url, OURS, retries=RetryPolicy(budget_s, first_wait_s=0.01)) as client:
        before = refusals(small, "overloaded")
        with pytest.raises(BusyError, match="queue is full") as caught:
            client.classify(red_clip)
        attempts = refusals(small, "overloaded") - before
    error = caught.value
    assert (error.code, error.status) == ("overloaded", 503)
    assert error.retry_after_s is not None
    assert 2 <= attempts <= 1 + budget_s / error.retry_after_s


def test_request_is_answered_once_the_queue_has_room(small: RunningServer, red_clip: bytes) -> None:
    async def ask() -> str:
        async with AsyncClient(small.url, OURS, retries=QUICK) as client:
            return (await client.classify(red_clip)).best.label

    with full(small) as make_room, after_refusals(small, "overloaded", 2, make_room):
        assert asyncio.run(ask()) == "red"


def test_server_that_is_killed_during_an_upload_and_restarts(tiny_models: Path, red_clip: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    half, killed = threading.Event(), threading.Event()

    class Halting:
        """The video in two halves; the first attempt waits between them until the server is killed."""

        def __iter__(self) -> Iterator[bytes]:
            yield red_clip[:500]
            half.set()
            assert killed.wait(PATIENCE_S)
            yield red_clip[500:]

    with Client(f"127.0.0.1:{port}", retries=QUICK) as client, ThreadPoolExecutor() as pool:
        with running_server(tiny_models, PORT=port) as server:
            assert client.classify(red_clip).best.label == "red"
            interrupted = pool.submit(client.classify, Halting())
            assert half.wait(PATIENCE_S)
            server.stop(signal.SIGKILL)
        killed.set()
        with running_server(tiny_models, PORT=port):
            assert interrupted.result(PATIENCE_S).best.label == "red"


def test_cut_connection_is_tried_again_where_the_video_can_be_read_again(
    server: RunningServer, red_clip: bytes
) -> None:
    async def ask() -> str:
        async with AsyncClient(proxy.url, retries=QUICK) as client:
            return (await client.classify(red_clip)).best.label

    with cutting_proxy(server.url) as proxy:
        for cut in (Cut(request_bytes=500), Cut(answer_bytes=100)):
            proxy.cuts = [cut]
            with Client(proxy.url, retries=QUICK) as client:
                assert client.classify(red_clip).best.label == "red"
            proxy.cuts = [cut]
            assert asyncio.run(ask()) == "red"
        assert proxy.connections == 8
        proxy.cuts = [Cut(request_bytes=500)]
        with Client(proxy.url, retries=QUICK) as client, pytest.raises(ConnectionFailed):
            client.classify(iter([red_clip]))
        assert proxy.connections == 9


def test_timeline_that_is_cut_is_told_after_its_windows(server: RunningServer) -> None:
    video = colour_clip((255, 0, 0), (0, 255, 0), frames=150)
    with cutting_proxy(server.url) as proxy, Client(proxy.url, retries=QUICK) as client:
        proxy.cuts = [Cut(answer_bytes=3000)]
        received: list[WindowResult | TimelineResult] = []
        with pytest.raises(ConnectionFailed):
            received.extend(client.timeline(video, window_s=0.1))
        received.extend(client.timeline(video, window_s=1.5))
        assert isinstance(received[-1], TimelineResult)
        assert proxy.connections == 2

"""Posts the hostile corpus to a real service."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.corpus import corpus
from tests.hostile.harness import Listener, run
from tests.hostile.item import Lure
from tests.support.server import RunningServer, running_server

# The first two passes warm up caches; later passes must not add resources.
PASSES = 2
GROWTH_MB = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(scope="module")
def hostile_server(tiny_models: Path, folder: Path) -> Iterator[RunningServer]:
    with running_server(tiny_models, {"TMPDIR": str(folder / "tmp")}, DECODE_WORKERS=2) as server:
        yield server


def test_corpus_is_large_and_deterministic() -> None:
    lure = Lure("http://127.0.0.1:9", "/nowhere")
    items = list(corpus(lure))
    assert len({item.data for item in items}) > 1200
    assert len({(item.category, item.name) for item in items}) == len(items)
    again = {(item.category, item.name): item.data for item in corpus(lure)}
    # The Matroska muxer gives every file a random identifier.
    assert all(len(again[item.category, item.name]) == len(item.data) for item in items)


def test_every_file_gets_the_expected_answer_without_side_effects(
    hostile_server: RunningServer, folder: Path
) -> None:
    report = run(hostile_server, folder, PASSES)
    assert report.faults == []
    assert report.memory_mb[-1] < report.memory_mb[0] + GROWTH_MB
    ends = {
        reason: hostile_server.metric("blvnet_decode_worker_restarts_total", reason=reason)
        for reason in ("crashed", "killed", "error", "timeout")
    }
    assert ends == dict.fromkeys(ends, 0)


def test_listener_counts_connections() -> None:
    listener = Listener()
    socket.create_connection(("127.0.0.1", int(listener.url.rpartition(":")[2]))).close()
    while not listener.connections:
        time.sleep(0.01)
    listener.close()
    assert listener.connections == 1

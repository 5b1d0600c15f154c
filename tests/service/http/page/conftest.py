"""Fixtures of the web page's tests: one Chromium and one server for each module, and videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Page, browser
from tests.support.long_clips import long_clip
from tests.support.server import RunningServer
from tests.support.tiny_models import colour_clip
from tests.support.tools import need

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    need("chromium", package="chromium")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, server: RunningServer) -> Page:
    """The page of the shared server, reloaded in a wide window."""
    return opened(chromium, server.url)


def opened(chromium: Page, url: str) -> Page:
    """The page of a server without its earlier requests and messages."""
    chromium.look(1440)
    chromium.command("Page.navigate", url="about:blank")  # so that the next load starts afresh
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(f"{url}/#classify")
    chromium.wait_for(
        "document.getElementById('limits').textContent || !document.getElementById('key-form').hidden"
    )
    return chromium


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thirds red and one third blue, in a file whose name has shell and HTML syntax."""
    file = tmp_path_factory.mktemp("clips") / "it's <b>$HOME.webm"
    file.write_bytes(colour_clip(RED, RED, BLUE, frames=24, container="webm", codec="libvpx"))
    return file


@pytest.fixture(scope="session")
def blue_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "blue.webm"
    file.write_bytes(colour_clip(BLUE, frames=24, container="webm", codec="libvpx"))
    return file


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of red, of green, and of red again: longer than a clip."""
    file = tmp_path_factory.mktemp("videos") / "three scenes.webm"
    file.write_bytes(colour_clip(RED, GREEN, RED, frames=600, container="webm", codec="libvpx"))
    return file


@pytest.fixture(scope="session")
def slow_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of video whose windows are slow."""
    file = tmp_path_factory.mktemp("videos") / "long.mkv"
    file.write_bytes(long_clip())
    return file

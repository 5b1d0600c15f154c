"""The web page in a real browser: it works, it works without a mouse, and it talks to this service alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser import Page, browser
from tests.server import RunningServer, running_server
from tests.tiny_models import colour_clip
from tests.tools import need

SHOWN = "!document.getElementById('{}').hidden"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    need("chromium", package="chromium")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, server: RunningServer) -> Page:
    """The page, loaded anew."""
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(f"{server.url}/")
    chromium.wait_for("document.getElementById('model').options.length")
    return chromium


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red, then blue, under a name that a shell and a page must not take for their own language."""
    file = tmp_path_factory.mktemp("clips") / "it's <b>$HOME.webm"
    colours = (255, 0, 0), (255, 0, 0), (0, 0, 255)
    file.write_bytes(colour_clip(*colours, frames=24, container="webm", codec="libvpx"))
    return file


def test_clip_is_labelled(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result"))
    assert page.text("#bars li:first-child .name") == "red"
    assert page.evaluate("document.querySelectorAll('#bars li').length") == 3
    assert page.evaluate("document.querySelectorAll('#chart polyline').length") == 3
    assert page.evaluate("document.querySelectorAll('#chart polyline')[2].points.length") == 4
    for stage in ("receive", "decode", "queue", "inference"):
        assert stage in page.text("#timing")
    assert "24 frames" in page.text("#facts")


def test_clip_is_played(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    assert page.wait_for("document.getElementById('video').videoWidth") == 96


def test_click_on_the_chart_goes_to_that_moment(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result") + " && document.getElementById('video').readyState > 0")
    page.evaluate("document.getElementById('video').pause()")
    page.evaluate(
        "(() => { const box = document.getElementById('chart').getBoundingClientRect();"
        " document.getElementById('chart').dispatchEvent(new MouseEvent('click', {clientX: box.right})); })()"
    )
    assert page.wait_for("document.getElementById('video').currentTime") > 0.9


def test_curl_line_quotes_the_file_name(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result"))
    assert "-F 'file=@it'\\''s <b>$HOME.webm'" in page.text("#curl")
    assert page.evaluate("document.querySelectorAll('b').length") == 0


def test_changed_option_asks_again(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result"))
    page.evaluate("document.getElementById('top_k').value = '1'")
    page.evaluate("document.getElementById('top_k').dispatchEvent(new Event('change'))")
    page.wait_for("document.querySelectorAll('#bars li').length === 1")
    assert "top_k=1" in page.text("#curl")


def test_problem_is_readable_and_the_next_clip_works(page: Page, clip: Path, tmp_path: Path) -> None:
    (text := tmp_path / "text.mp4").write_text("not a clip, just words. " * 100)
    page.choose_file("#file", text)
    page.wait_for(SHOWN.format("problem"))
    assert "not a video" in page.text("#problem")
    assert "Request " in page.text("#problem-id")
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result"))


def test_clip_past_the_limit_is_not_even_sent(page: Page, tmp_path: Path) -> None:
    (large := tmp_path / "large.mp4").write_bytes(bytes(2_000_001))
    page.choose_file("#file", large)
    page.wait_for(SHOWN.format("problem"))
    assert "too large" in page.text("#problem")
    assert not any("/v1/classify" in request for request in page.requests)


def test_file_can_be_chosen_from_the_keyboard(page: Page) -> None:
    reached = []
    for _ in range(8):
        page.press("Tab", 9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [name for name in reached if name != "A"][:4] == ["file", "model", "top_k", "clips"]


def test_nothing_is_asked_of_anybody_else_and_the_policy_is_kept(
    page: Page, server: RunningServer, clip: Path
) -> None:
    page.choose_file("#file", clip)
    page.wait_for(SHOWN.format("result"))
    allowed = (f"{server.url}/", f"blob:{server.url}/", "data:")
    assert [request for request in page.requests if not request.startswith(allowed)] == []
    assert page.complaints == []


def test_policy_stops_what_the_page_did_not_bring(page: Page) -> None:
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.x = 1'}))"
    )
    assert page.evaluate("window.x") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_key_is_asked_for_where_one_is_needed(chromium: Page, tiny_models: Path, clip: Path) -> None:
    with running_server(tiny_models, API_KEYS="open-sesame") as locked:
        chromium.open(f"{locked.url}/")
        chromium.wait_for(SHOWN.format("key-form"))
        chromium.evaluate("document.getElementById('key').value = 'open-sesame'")
        chromium.evaluate("document.getElementById('key-form').requestSubmit()")
        chromium.wait_for("document.getElementById('model').options.length")
        chromium.choose_file("#file", clip)
        chromium.wait_for(SHOWN.format("result"))
        assert "open-sesame" not in chromium.text("#curl")


def test_documentation_loads_from_here_alone(chromium: Page, server: RunningServer) -> None:
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(f"{server.url}/docs")
    chromium.wait_for("document.querySelectorAll('.opblock').length")
    elsewhere = [url for url in chromium.requests if not url.startswith((f"{server.url}/", "data:"))]
    assert (elsewhere, chromium.complaints) == ([], [])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_carries_a_policy(server: RunningServer, path: str) -> None:
    answer: httpx.Response = server.get(path)
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "sha256-" in scripts
    assert "unsafe" not in scripts

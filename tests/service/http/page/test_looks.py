"""The page in Chromium: every state at three widths, light and dark, and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.http.page.conftest import opened
from tests.service.http.page.waits import CLIP_DONE, PROBLEM, TIMELINE_DONE
from tests.support.browser import Page
from tests.support.server import RunningServer, running_server

WIDTHS = (390, 768, 1440)
SCHEMES = ("light", "dark")
SMALLEST_TEXT_PX = 11
SMALL_TEXT = f"""[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()
  && [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
  && parseFloat(getComputedStyle(one).fontSize) < {SMALLEST_TEXT_PX}).map((one) => one.outerHTML)"""
SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"
IN_VIEW = """(() => {{ const box = document.querySelector('{}').getBoundingClientRect();
  return box.top >= 0 && box.bottom <= innerHeight; }})()"""


@pytest.fixture(scope="module")
def locked(tiny_models: Path) -> Iterator[RunningServer]:
    """A server that requires a key."""
    with running_server(tiny_models, API_KEYS="open-sesame") as running:
        yield running


def check_looks(page: Page) -> None:
    """Check the present state at every width in both colour schemes, and with axe."""
    for scheme in SCHEMES:
        for width in WIDTHS:
            page.look(width, scheme=scheme)
            # Twice, so that the drawing for the new size is complete.
            page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            assert page.evaluate(SIDEWAYS) <= 0, (width, scheme)
            assert page.evaluate(SMALL_TEXT) == [], (width, scheme)
            if (width, scheme) in ((390, "dark"), (1440, "light"), (1440, "dark")):
                assert page.axe() == [], (width, scheme)
    page.look(1440)


def test_first_visit_and_results_look_right_everywhere(page: Page, clip: Path, blue_clip: Path) -> None:
    check_looks(page)
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    page.evaluate("document.getElementById('video').pause()")
    page.click("#evidence-figure summary")
    check_looks(page)
    page.choose_file("#file", blue_clip)
    page.wait_for("document.querySelector('#headline strong').textContent === 'blue'")
    page.click("#runs .side:not([hidden])")
    page.click("#tab-json")
    check_looks(page)
    assert page.complaints == []


def test_timelines_and_problems_look_right_everywhere(page: Page, video: Path, tmp_path: Path) -> None:
    page.choose_file("#file", video)
    page.wait_for(TIMELINE_DONE)
    page.evaluate("document.getElementById('video').pause()")
    page.click("#zoom-in")
    check_looks(page)
    (text := tmp_path / "text.mp4").write_text("not a clip, just words. " * 100)
    page.choose_file("#file", text)
    page.wait_for(PROBLEM)
    page.complaints.clear()  # the browser itself logs the status
    check_looks(page)
    assert page.complaints == []


def test_other_views_and_the_key_look_right_everywhere(
    chromium: Page, server: RunningServer, locked: RunningServer
) -> None:
    page = opened(chromium, server.url)
    for view in ("models", "teach"):
        page.evaluate(f"location.hash = '{view}'")
        page.wait_for(f"!document.getElementById('view-{view}').hidden")
        check_looks(page)
    assert page.complaints == []
    page = opened(chromium, locked.url)
    check_looks(page)
    assert page.complaints == []


def test_result_is_in_view_and_swipes_over_charts_scroll_on_a_phone(
    page: Page, clip: Path, video: Path
) -> None:
    page.look(390, 740, touch=True)
    page.choose_file("#file", clip)
    page.wait_for(f"{CLIP_DONE} && {IN_VIEW.format('#headline')}")
    check_swipe(page, "#chart-stage")
    page.choose_file("#file", video)
    page.wait_for(f"{TIMELINE_DONE} && {IN_VIEW.format('#headline')}")
    check_swipe(page, "#lanes")
    assert page.complaints == []


def check_swipe(page: Page, chart: str) -> None:
    """Check that a swipe that begins on a chart scrolls the page."""
    page.evaluate("document.getElementById('video').pause()")
    page.point(chart)  # brings it into view
    before = page.evaluate("scrollY")
    page.swipe_up(chart)
    page.wait_for(f"scrollY > {before}")

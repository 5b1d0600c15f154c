"""The page in Chromium: uploads with progress, cancelling, queues, comparison, and API keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.http.page.conftest import opened
from tests.service.http.page.waits import CLIP_DONE, PROBLEM, TIMELINE_DONE, table
from tests.support.browser import Page
from tests.support.server import RunningServer, running_server

KEY = "open-sesame"
UPLOADING = "document.getElementById('status-text').textContent.startsWith('Uploading')"


@pytest.fixture(scope="module")
def locked(tiny_models: Path) -> Iterator[RunningServer]:
    """A server that requires a key."""
    with running_server(tiny_models, API_KEYS=KEY) as running:
        yield running


def enter_key(page: Page, key: str) -> None:
    page.enter("#key", key)
    page.evaluate("document.getElementById('key-form').requestSubmit()")


def throttle(page: Page, upload_bytes_per_s: int) -> None:
    page.command(
        "Network.emulateNetworkConditions", offline=False, latency=0,
        downloadThroughput=-1, uploadThroughput=upload_bytes_per_s,
    )  # fmt: skip


def padded(clip: Path, target: Path, size: int) -> Path:
    """The clip with bytes after its end that decoders ignore."""
    content = clip.read_bytes()
    target.write_bytes(content + bytes(size - len(content)))
    return target


def test_slow_upload_shows_its_progress_and_is_cancelled(
    page: Page, server: RunningServer, clip: Path, tmp_path: Path
) -> None:
    large = padded(clip, tmp_path / "large.webm", 1_500_000)
    throttle(page, 200_000)
    try:
        page.choose_file("#file", large)
        page.wait_for(f"{UPLOADING} && document.getElementById('progress').value > 0.1")
        shown = page.evaluate("document.getElementById('progress').value")
        assert shown < 1
        assert page.text("#status-text").endswith(" of 1.5 MB")
        page.click("#cancel")
        page.wait_for("document.getElementById('status-text').textContent === 'Cancelled.'")
        assert page.text("#news") == "Cancelled."
        assert page.text("#runs .state") == "cancelled"
        server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 1, "end of the upload")
    finally:
        throttle(page, -1)
    page.click("#restart")
    page.wait_for(CLIP_DONE)
    assert page.text("#headline strong") == "red"
    steps = {row[0]: row for row in table(page, ".waterfall")[1:]}
    assert (steps["upload"][1], steps["decode"][1]) == ("network", "service")
    lanes = page.each(".waterfall .lane i", "parseFloat(one.style.left)")
    assert lanes == sorted([lanes[0], *lanes[1:5]]) + lanes[5:]
    assert page.complaints == []


def test_dropped_files_become_a_queue_and_two_results_are_compared(
    page: Page, clip: Path, blue_clip: Path, video: Path
) -> None:
    page.drop("#drop", clip, blue_clip, video)
    page.wait_for("document.querySelectorAll('#runs .state.done').length === 3")
    assert page.each("#runs .file", "one.textContent") == [video.name, blue_clip.name, clip.name]
    assert page.each("#runs .state", "one.textContent.split(',')[0]") == ["3 segments", "blue", "red"]
    assert page.text("#headline strong") == "red"  # the first file
    page.click("#runs li:nth-child(2) .side")
    page.wait_for("!document.getElementById('comparison').hidden")
    assert page.text("#comparison-note") == "The best labels differ: “red” and “blue”."
    head, *body = table(page, "#comparison-table")
    assert head[1:] == [f"{one.name}tiny, whole clip: score" for one in (clip, blue_clip)]
    # It is above the result, which may be longer than the screen.
    tops = page.each("#comparison, #result", "one.getBoundingClientRect().top")
    assert tops == sorted(tops)
    assert {row[0]: row[2] for row in body}["blue"] == "100 %"
    # Showing the models loses nothing.
    page.evaluate("location.hash = 'models'")
    page.wait_for("document.querySelectorAll('#models-body tr').length")
    assert table(page, ".models")[1][:2] == ["tinyversion 1", "ready"]
    assert page.evaluate("document.getElementById('view-classify').hidden")
    page.evaluate("history.back()")
    page.wait_for("!document.getElementById('view-classify').hidden")
    assert page.text("#headline strong") == "red"
    assert not page.evaluate("document.getElementById('comparison').hidden")
    # A timeline has no scores as a whole; its column has the share of the time.
    page.click("#runs li:first-child .side")
    head, *body = table(page, "#comparison-table")
    assert head[2] == f"{video.name}tiny, timeline, windows of 4 s: share of the time"
    assert {row[0]: row[2] for row in body}["red"] == "67 %"
    assert {row[0]: row[2] for row in body}["blue"] == "not listed"
    drawn = page.each(
        "#comparison-table tbody tr", "[one.cells[2].textContent, one.querySelectorAll('.track').length]"
    )
    assert {text: bars for text, bars in drawn if "not listed" in text} == {"not listed": 1}
    page.click("#runs li:first-child .open")
    page.wait_for(TIMELINE_DONE)
    assert page.text("#headline strong") == "3 segments, 2 labels"
    assert page.complaints == []


def test_waiting_file_can_be_taken_out_of_the_queue(page: Page, clip: Path, blue_clip: Path) -> None:
    throttle(page, 20_000)
    try:
        page.drop("#drop", blue_clip, clip)
        page.wait_for("document.querySelectorAll('#runs li').length === 2")
        page.click("#runs li:first-child .side")
        page.wait_for("document.querySelector('#runs .state').textContent === 'cancelled'")
    finally:
        throttle(page, -1)
    page.wait_for("document.querySelectorAll('#runs .state.done').length === 1")


def test_missing_key_is_asked_for_and_a_wrong_one_is_called_wrong(
    chromium: Page, locked: RunningServer, clip: Path
) -> None:
    page = opened(chromium, locked.url)
    page.wait_for("!document.getElementById('key-form').hidden")
    assert "needs an API key" in page.text("#key-note")
    assert page.evaluate("document.getElementById('problem').hidden")
    assert page.complaints == []
    page.choose_file("#file", clip)
    page.wait_for(PROBLEM)
    assert page.text("#problem-detail").startswith("Enter your key above")
    assert page.evaluate("document.getElementById('again').hidden")
    enter_key(page, "wrong")
    page.wait_for("document.getElementById('key-note').textContent.includes('rejects')")
    assert page.evaluate("document.getElementById('key').getAttribute('aria-invalid')") == "true"
    assert all("401" in complaint for complaint in page.complaints)  # what the browser itself logs
    page.complaints.clear()
    enter_key(page, KEY)
    page.wait_for("document.getElementById('model').options.length")
    assert page.evaluate("document.getElementById('key-form').hidden")
    page.wait_for(CLIP_DONE)  # the video that waited for the key
    page.click("#tab-curl")
    assert "Authorization: Bearer KEY" in page.text("#snippet")
    assert KEY not in page.text("#snippet")
    # The tab remembers it.
    page.open(f"{locked.url}/")
    page.wait_for("document.getElementById('model').options.length")
    page.click("#forget-key")
    page.wait_for("!document.getElementById('key-form').hidden")
    assert page.complaints == []


def test_timeline_is_drawn_while_it_arrives_and_can_be_stopped(
    chromium: Page, locked: RunningServer, slow_video: Path
) -> None:
    page = opened(chromium, locked.url)
    enter_key(page, KEY)
    page.wait_for("document.getElementById('model').options.length")
    page.click("#mode-timeline")
    page.enter("#window_s", 1)
    page.choose_file("#file", slow_video)
    page.wait_for("document.querySelectorAll('#lanes path').length")
    assert page.text("#status-text").endswith(" of 60 windows")
    page.click("#cancel")
    page.wait_for("document.getElementById('windows-note').textContent.startsWith('Stopped after')")
    assert page.evaluate("document.getElementById('segments').children.length")
    assert page.evaluate("document.getElementById('problem').hidden")
    locked.wait_for(lambda: locked.metric("blvnet_inflight_requests") == 1, "end of the timeline")
    assert locked.metric("blvnet_requests_total", route="/v1/timeline", code="499") == 1


def block(page: Page, *patterns: str) -> None:
    """Let requests for these addresses fail, as if the service had stopped."""
    page.command("Network.setBlockedURLs", urls=list(patterns))


def test_trying_again_repeats_what_failed(page: Page, clip: Path) -> None:
    block(page, "*/v1/models", "*/page/samples/*")
    try:
        page.command("Page.reload")
        page.wait_for("document.getElementById('problem')?.hidden === false")
        assert "does not answer" in page.text("#problem-title")
        assert page.text("#problem-detail") == "Check that it is still running."  # no file was sent
        block(page, "*/page/samples/*")
        page.click("#again")
        page.wait_for("document.getElementById('problem').hidden")
        assert not page.evaluate("document.getElementById('hint').hidden")
        page.choose_file("#file", clip)
        page.wait_for(CLIP_DONE)
        page.click("[data-sample='turning.mp4']")
        page.wait_for("document.getElementById('problem-title').textContent.includes('sample')")
        block(page, "*/v1/models", "*/page/samples/*")
        page.evaluate("location.hash = 'models'")
        page.wait_for("document.getElementById('models-problem').textContent.includes('does not answer')")
        page.evaluate("location.hash = 'classify'")
    finally:
        block(page)
    page.click("#again")
    page.wait_for("document.querySelectorAll('#runs .state.done').length === 2")
    assert page.text("#runs .file") == "turning.mp4"
    assert page.evaluate("document.getElementById('problem').hidden")

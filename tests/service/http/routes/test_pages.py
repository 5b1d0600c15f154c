"""The web page in a real browser: it works, it works without a mouse, and it talks to this service alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser import Page, browser
from tests.long_clips import long_clip
from tests.server import RunningServer, running_server
from tests.service.http.routes.test_timeline import mostly_broken
from tests.tiny_models import colour_clip
from tests.tools import need

SHOWN = "!document.getElementById('{}').hidden"
PROGRESS = "document.getElementById('progress-text').textContent.startsWith('{}')"
KEY = "open-sesame"
WINDOWS = 60  # of a second, in the long clip


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


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of red, of green, and of red again."""
    file = tmp_path_factory.mktemp("videos") / "video.webm"
    colours = (255, 0, 0), (0, 255, 0), (255, 0, 0)
    file.write_bytes(colour_clip(*colours, frames=150, container="webm", codec="libvpx"))
    return file


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose windows take their time."""
    file = tmp_path_factory.mktemp("videos") / "long.mkv"
    file.write_bytes(long_clip())
    return file


@pytest.fixture(scope="module")
def locked(tiny_models: Path) -> Iterator[RunningServer]:
    """A server that wants a key."""
    with running_server(tiny_models, API_KEYS=KEY) as running:
        yield running


@pytest.fixture
def unlocked(chromium: Page, locked: RunningServer) -> Page:
    """Its page, with the key given."""
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(f"{locked.url}/")
    chromium.wait_for(SHOWN.format("key-form"))
    chromium.evaluate(f"document.getElementById('key').value = '{KEY}'")
    chromium.evaluate("document.getElementById('key-form').requestSubmit()")
    chromium.wait_for("document.getElementById('model').options.length")
    return chromium


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
    assert [name for name in reached if name != "A"][:5] == ["file", "mode-clip", "model", "top_k", "clips"]


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


def test_key_is_asked_for_where_one_is_needed(unlocked: Page, clip: Path) -> None:
    unlocked.choose_file("#file", clip)
    unlocked.wait_for(SHOWN.format("result"))
    assert KEY not in unlocked.text("#curl")


def prepare(page: Page, video: Path, *, window_s: float | str, stride_s: float | str = "") -> None:
    """Choose the timeline, then a video and its windows."""
    page.evaluate("document.getElementById('mode-timeline').click()")
    page.choose_file("#file", video)
    page.evaluate(f"document.getElementById('window_s').value = '{window_s}'")
    page.evaluate(f"document.getElementById('stride_s').value = '{stride_s}'")
    page.wait_for("!document.getElementById('begin').disabled")


def begin(page: Page, video: Path, **windows: float | str) -> None:
    """`prepare`, and begin."""
    prepare(page, video, **windows)
    page.evaluate("document.getElementById('begin').click()")


def rows(page: Page) -> list[str]:
    """The segments that are listed, a line each."""
    page.wait_for("document.getElementById('segments').children.length")
    return [
        " ".join(row.split())
        for row in page.evaluate(
            "[...document.getElementById('segments').children].map((row) => row.innerText)"
        )
    ]


def chosen_window(page: Page) -> str:
    """What a screen reader says of the window that is looked at."""
    return str(page.evaluate("document.getElementById('lanes').getAttribute('aria-valuetext')"))


def test_timeline_is_drawn_and_summed_up(page: Page, video: Path) -> None:
    begin(page, video, window_s=1)
    page.wait_for(PROGRESS.format("Done: 6 of 6 windows"))
    page.wait_for("document.querySelectorAll('.lane-name').length === 2")
    assert [row.rsplit(" ", 2)[0] for row in rows(page)] == [
        "0:00 to 0:02 red", "0:02 to 0:04 green", "0:04 to 0:06 red",
    ]  # fmt: skip
    best = (
        "[...document.querySelectorAll('#lanes path[opacity=\"1\"]')].map((bars) => bars.getAttribute('d'))"
    )
    assert [bars.count("M") for bars in page.evaluate(best)] == [4, 2]
    assert page.text("#window-bars li:first-child .name") == "red"
    assert page.text("#news") == "Done: 6 of 6 windows."
    assert "150 frames" in page.text("#facts")
    assert "inference" in page.text("#timing")
    assert "curl -N -F file=@video.webm" in page.text("#curl")
    assert "/v1/timeline?window_s=1'" in page.text("#curl")
    assert page.complaints == []


def test_labels_beyond_the_most_frequent_share_a_lane(page: Page, video: Path) -> None:
    begin(page, video, window_s=1)
    page.wait_for(PROGRESS.format("Done"))
    page.evaluate(
        "for (let index = 10; index < 14; index += 1) windowCame(timeline, {...timeline.windows[0],"
        " predictions: [{label: `label ${index}`, index, score: 1}]})"
    )
    page.wait_for("document.querySelectorAll('.lane-name').length === 6")
    names = page.evaluate("[...document.querySelectorAll('.lane-name')].map((name) => name.textContent)")
    assert names == ["red", "green", "label 10", "label 11", "label 12", "Other labels"]


def test_timeline_waits_for_its_button_and_says_what_is_usual(page: Page, video: Path) -> None:
    prepare(page, video, window_s=4)
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.wait_for("document.getElementById('video').readyState > 0")
    assert page.evaluate("document.getElementById('stride_s').placeholder") == "4"
    assert "Press Begin" in page.text("#status")
    page.evaluate("document.getElementById('window_s').value = '0'")
    page.evaluate("document.getElementById('begin').click()")
    assert not page.evaluate("document.getElementById('window_s').validity.valid")
    assert not any("/v1/timeline" in request or "/v1/classify" in request for request in page.requests)


def test_windows_are_looked_at_and_gone_to_with_keys_and_pointer(page: Page, video: Path) -> None:
    begin(page, video, window_s=1)
    page.wait_for(PROGRESS.format("Done") + " && document.getElementById('video').readyState > 0")
    page.wait_for("document.getElementById('lanes').getAttribute('aria-valuenow') === '6'")
    page.evaluate("document.getElementById('video').pause()")
    page.evaluate("document.getElementById('lanes').focus()")
    for _ in range(2):
        page.press("ArrowLeft", 37)
    assert chosen_window(page).startswith("0:03 to 0:04, window 4 of 6: green")
    page.press("Enter", 13, "\r")
    assert page.wait_for("document.getElementById('video').currentTime") == 3
    page.press("Home", 36)
    assert chosen_window(page).startswith("0:00 to 0:01, window 1 of 6: red")
    page.evaluate(
        "(() => { const lanes = document.getElementById('lanes'), box = lanes.getBoundingClientRect();"
        " for (const kind of ['pointermove', 'click'])"
        " lanes.dispatchEvent(new MouseEvent(kind, {clientX: box.left + 0.58 * box.width})); })()"
    )
    assert chosen_window(page).startswith("0:03 to 0:04, window 4 of 6: green")
    page.wait_for("Math.abs(document.getElementById('video').currentTime - 3.5) < 0.2")
    page.evaluate("document.querySelectorAll('#segments button')[1].click()")
    page.wait_for("document.getElementById('video').currentTime === 2")


def test_timeline_is_drawn_while_it_comes_and_can_be_stopped(
    unlocked: Page, locked: RunningServer, long_video: Path
) -> None:
    begin(unlocked, long_video, window_s=1)
    unlocked.wait_for("document.querySelectorAll('#lanes path').length")
    assert unlocked.text("#begin") == "Stop"
    assert unlocked.text("#progress-text").endswith(f" of {WINDOWS} windows")
    unlocked.evaluate("document.getElementById('begin').click()")
    unlocked.wait_for(PROGRESS.format("Stopped after"))
    assert unlocked.evaluate("document.getElementById('progress').value") < WINDOWS
    assert unlocked.text("#begin") == "Begin"
    assert rows(unlocked)
    assert unlocked.evaluate("document.getElementById('problem').hidden")
    locked.wait_for(lambda: locked.metric("blvnet_inflight_requests") == 1, "end of the timeline")
    assert locked.metric("blvnet_requests_total", route="/v1/timeline", code="499") == 1


def test_timeline_that_is_cut_off_says_so_beside_what_it_has(
    chromium: Page, tiny_models: Path, long_video: Path
) -> None:
    with running_server(tiny_models) as killed:
        chromium.open(f"{killed.url}/")
        begin(chromium, long_video, window_s=1)
        chromium.wait_for("document.querySelectorAll('#lanes path').length")
        killed.process.kill()
        chromium.wait_for(SHOWN.format("problem"))
        assert "broke off" in chromium.text("#problem")
        assert chromium.text("#progress-text").startswith("Failed after")


def test_error_line_is_shown_beside_the_windows_before_it(page: Page, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.mp4").write_bytes(mostly_broken())
    begin(page, broken, window_s=1)
    page.wait_for(SHOWN.format("problem"))
    assert "cannot be decoded" in page.text("#problem")
    assert "Request " in page.text("#problem-id")
    assert page.text("#progress-text").startswith("Failed after")
    assert rows(page)[0].startswith("0:00 to ")
    assert page.text("#begin") == "Begin"


def test_problem_before_the_first_line_is_readable_and_the_next_timeline_works(
    page: Page, video: Path
) -> None:
    begin(page, video, window_s=4, stride_s=0.1)
    page.wait_for(SHOWN.format("problem"))
    assert "stride_s must be at least window_s / 16" in page.text("#problem")
    assert page.evaluate("document.getElementById('result').hidden")
    page.evaluate("document.getElementById('stride_s').value = '2'")
    page.evaluate("document.getElementById('again').click()")
    page.wait_for(PROGRESS.format("Done: 2 of 2 windows"))
    assert page.evaluate("document.getElementById('problem').hidden")


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

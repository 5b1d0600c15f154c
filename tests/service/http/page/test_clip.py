"""The page in Chromium: a clip, its labels, and one moment shared by player, film strip and chart."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from tests.service.http.page.conftest import opened
from tests.service.http.page.waits import CLIP_DONE, PROBLEM, answer, pause, table, time_of
from tests.support.browser import Page
from tests.support.documented import run
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import write_package

NOW = "[...document.querySelectorAll('#strip img')].findIndex((image) => image.classList.contains('now'))"
VALUE = "document.getElementById('{}').getAttribute('aria-valuetext')"


def seconds(clock: str) -> float:
    minutes, rest = clock.split(":")
    return 60 * int(minutes) + float(rest)


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_clip_is_labelled_and_the_drawn_numbers_are_those_of_the_answer(page: Page, clip: Path) -> None:
    assert page.text("#knowledge") == "tiny knows 3 actions: “red”, “green” and “blue”."
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    said = answer(page)
    evidence, predictions = said["evidence"], said["predictions"]
    assert page.text("#headline strong") == predictions[0]["label"] == "red"
    assert [row.split("\n")[0] for row in page.each("#bars li", "one.innerText")] == [
        item["label"] for item in predictions
    ]
    page.click("#evidence-figure summary")
    head, *moments, mean, scores = table(page, "#evidence-table table")
    assert head == ["Moment", *(item["label"] for item in predictions)]
    assert [[number(cell) for cell in row[1:]] for row in moments] == [
        pytest.approx(row, abs=6e-4) for row in evidence["margins"]
    ]
    assert [seconds(row[0]) for row in moments] == pytest.approx(evidence["timestamps_s"], abs=0.06)
    # The drawn values add up to the scores.
    for column, item in enumerate(predictions, 1):
        assert number(mean[column]) == pytest.approx(
            math.log(item["score"] / evidence["runner_up"]["score"]), abs=2e-3
        )
        assert float(scores[column].removesuffix(" %")) == pytest.approx(100 * item["score"], abs=0.5)
    # The lines have the heights of the numbers.
    lines = page.each("#chart polyline", "[...one.points].map((point) => point.y)")[::-1]
    zero = page.evaluate("Number(document.querySelector('#chart .zero').getAttribute('y1'))")
    per_logit = (zero - lines[0][0]) / evidence["margins"][0][0]
    for rank, line in enumerate(lines):
        assert [zero - y for y in line] == pytest.approx(
            [row[rank] * per_logit for row in evidence["margins"]], abs=0.2
        )
    assert page.text("#news").startswith("Result: red, ")
    assert "24 frames" in page.text("#facts")
    assert [row[0] for row in table(page, ".waterfall")][1:] == [
        "upload",
        "receive",
        "decode",
        "queue",
        "inference",
        "answer",
    ]
    assert page.complaints == []


def test_cursor_is_shared_by_player_strip_and_chart(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    pause(page)
    frames = answer(page)["frames"]
    images = page.each("#strip img", "[one.naturalWidth, one.style.gridRow]")
    assert images == [[item["size"], "1" if item["input"] == "little" else "2"] for item in frames]
    assert page.evaluate("document.querySelectorAll('#ticks .tick').length") == len(frames) == 8
    # A mouse over the chart moves all of them.
    page.hover("#chart-stage", 0.95)
    page.wait_for(f"{NOW} === 7")
    page.wait_for("document.getElementById('video').currentTime > 0.8")
    assert page.text("#caption").endswith("blue")
    assert "blue" in page.text("#evidence-now").split(",")[0]
    # So does one over the strip.
    page.hover("#strip", 0.03)
    page.wait_for("document.getElementById('video').currentTime < 0.1")
    assert page.text("#caption").endswith("red")
    assert page.evaluate(VALUE.format("chart-stage")).split(",")[0].startswith("0:00.1: red +")
    # And arrow keys on either.
    page.evaluate("document.getElementById('strip').focus()")
    page.press("End", 35)
    page.wait_for(f"{NOW} === 7")
    page.press("ArrowLeft", 37)
    assert (
        page.evaluate(VALUE.format("strip"))
        == f"Frame {frames[6]['frame']} at 0:00.8, 32 pixels. Leading: blue"
    )
    page.evaluate("document.getElementById('chart-stage').focus()")
    page.press("Home", 36)
    page.wait_for("document.getElementById('video').currentTime < 0.15")
    assert page.evaluate(NOW) in (0, 1)
    # A scrubbed player moves strip and chart.
    page.evaluate("document.getElementById('video').currentTime = 0.9")
    page.wait_for(f"{NOW} === 7")
    assert page.complaints == []


def test_frames_of_several_samplings_lie_side_by_side(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    page.enter("#clips", 5)
    page.wait_for("document.querySelectorAll('#strip img').length === 40")
    boxes = page.each(
        "#strip img",
        "[one.style.gridRow, one.getBoundingClientRect().left, one.getBoundingClientRect().right]",
    )
    for row in ("1", "2"):
        spans = sorted([left, right] for at, left, right in boxes if at == row)
        assert all(right <= following for (_, right), (following, _) in itertools.pairwise(spans))
    # 40 samples of 24 frames, some more than once.
    seen = len(set(answer(page)["sampled"]["frames"]))
    assert page.text("#facts").endswith(f"The network saw {seen} of the frames.")
    assert seen <= 24


def test_player_that_is_paused_and_scrubbed_at_once_moves_the_caption(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    page.wait_for(
        "!document.getElementById('video').paused && document.getElementById('video').currentTime > 0.1"
    )
    for seconds, name in ((0.9, "blue"), (0.2, "red"), (0.85, "blue")):
        page.evaluate("document.getElementById('video').play()")
        page.evaluate(
            "document.getElementById('video').pause();"
            f" document.getElementById('video').currentTime = {seconds}"
        )
        page.wait_for(f"document.getElementById('caption').textContent === '0:00.{int(10 * seconds)}{name}'")


def test_logits_of_each_label_are_drawn_for_sigmoid_scores(
    chromium: Page, clip: Path, tmp_path: Path
) -> None:
    write_package(tmp_path, scores="sigmoid")
    with running_server(tmp_path, provider="cpu") as several:
        page = opened(chromium, several.url)
        page.choose_file("#file", clip)
        page.wait_for(CLIP_DONE)
        said = answer(page)
        predictions, margins = said["predictions"], said["evidence"]["margins"]
        assert said["evidence"]["runner_up"] is None
        assert "e to the power of the mean is the score divided by what is left" in page.text(
            "#evidence-note"
        )
        page.click("#evidence-figure summary")
        head, *moments, mean, _ = table(page, "#evidence-table table")
        assert head == ["Moment", *(item["label"] for item in predictions)]
        assert [[number(cell) for cell in row[1:]] for row in moments] == [
            pytest.approx(row, abs=6e-4) for row in margins
        ]
        red = predictions[0]["score"]
        assert number(mean[1]) == pytest.approx(math.log(red / (1 - red)), abs=2e-3)
        assert len(page.each("#chart polyline", "1")) == len(predictions)
        assert page.complaints == []


def test_caption_follows_playback(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    page.evaluate("document.getElementById('video').playbackRate = 0.5")
    for name in ("blue", "red", "blue"):  # it plays in a loop
        page.wait_for(f"document.getElementById('caption').textContent.endsWith('{name}')")
    assert not page.evaluate("document.getElementById('video').paused")


def test_snippets_hold_the_current_parameters(page: Page, clip: Path, server: RunningServer) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    page.enter("#top_k", "2")
    page.wait_for("document.querySelectorAll('#bars li').length === 2")
    page.click("#tab-curl")
    assert page.text("#snippet") == (
        f"curl -F 'file=@it'\\''s <b>$HOME.webm' '{server.url}/v1/classify?top_k=2&evidence=true'"
    )
    page.evaluate("document.getElementById('tab-curl').focus()")
    page.press("ArrowRight", 39)
    assert page.evaluate("document.activeElement.id") == "tab-python"
    assert 'client.classify("it\'s <b>$HOME.webm", top_k=2)' in page.text("#snippet")
    page.click("#tab-javascript")
    assert f'fetch("{server.url}/v1/classify?top_k=2&evidence=true"' in page.text("#snippet")
    page.click("#tab-cli")
    assert (
        page.text("#snippet") == f"blvnet classify 'it'\\''s <b>$HOME.webm' --server {server.url} --top-k 2"
    )
    page.click("#copy")
    page.wait_for("document.getElementById('copy').textContent !== 'Copy'")
    assert page.evaluate("document.querySelectorAll('b').length") == 0


@pytest.mark.parametrize("name", ['-it;type="a", b\\.webm', "-"])
def test_shown_commands_find_files_with_unusual_names(
    page: Page, clip: Path, server: RunningServer, tmp_path: Path, name: str
) -> None:
    named = tmp_path / name
    named.write_bytes(clip.read_bytes())
    page.choose_file("#file", named)
    page.wait_for(CLIP_DONE)
    for form in ("curl", "cli"):
        page.click(f"#tab-{form}")
        assert "red" in run(page.text("#snippet"), "sh", tmp_path, server)


def test_samples_of_the_page_can_be_tried(page: Page) -> None:
    names = page.each(".sample", "one.dataset.sample")
    assert len(names) == 3
    page.click(".sample")
    page.wait_for(CLIP_DONE)
    page.click(".sample:last-of-type")
    page.wait_for("document.getElementById('mode-timeline').checked")  # 20 s
    page.wait_for("document.querySelectorAll('#runs .state.done').length === 2")
    assert page.complaints == []


def test_problem_is_readable_and_the_next_clip_works(page: Page, clip: Path, tmp_path: Path) -> None:
    (text := tmp_path / "text.mp4").write_text("not a clip, just words. " * 100)
    page.choose_file("#file", text)
    page.wait_for(PROBLEM)
    assert page.text("#problem-detail").startswith("The file is not a video")
    assert page.text("#caption") == ""
    assert "Request " in page.text("#problem-id")
    page.wait_for("!document.getElementById('unplayable').hidden")  # the browser's own verdict
    (large := tmp_path / "large.mp4").write_bytes(bytes(2_000_001))
    before = len(page.requests)
    page.choose_file("#file", large)
    page.wait_for("document.getElementById('problem-title').textContent.includes('too large')")
    assert not any("/v1/classify" in request for request in page.requests[before:])
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    assert page.evaluate("document.getElementById('problem').hidden")


def test_nothing_is_requested_elsewhere_and_the_policy_is_kept(
    page: Page, server: RunningServer, clip: Path
) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    allowed = (f"{server.url}/", f"blob:{server.url}/", "data:")
    assert [request for request in page.requests if not request.startswith(allowed)] == []
    assert page.complaints == []
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.x = 1'}))"
    )
    assert page.evaluate("window.x") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_file_can_be_chosen_from_the_keyboard(page: Page) -> None:
    reached = []
    for _ in range(14):
        page.press("Tab", 9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [name for name in reached if name != "A"][:2] == ["to-classify", "to-teach"]
    assert (
        reached.index("file") < reached.index("record") < reached.index("mode-clip") < reached.index("model")
    )


def test_time_of_the_player_is_kept_by_another_result_of_the_same_clip(page: Page, clip: Path) -> None:
    page.choose_file("#file", clip)
    page.wait_for(CLIP_DONE)
    pause(page)
    page.evaluate("document.getElementById('video').currentTime = 0.6")
    page.wait_for("!document.getElementById('video').seeking")
    page.enter("#top_k", "1")
    page.wait_for("document.querySelectorAll('#bars li').length === 1")
    assert time_of(page) == pytest.approx(0.6)

"""The Teach view in Chromium: labels are recorded with a camera that plays files, taught, and recognized."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.packages.folders import bundled_models
from tests.service.http.page.conftest import opened
from tests.service.http.page.test_looks import check_looks
from tests.service.http.page.waits import table
from tests.support.browser import Page, browser
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import TinyModel, write_package
from tests.support.tools import need

WIDTH, HEIGHT, RATE = 160, 120, 10
IDLE = "document.getElementById('teach').getAttribute('aria-busy') !== 'true'"
COUNT = "document.querySelector('[data-label=\"{}\"] .count').textContent === '{}'"
BUNDLED = "blvnet-tam-mini"
# Luma and chroma of what the camera sees.
RED, BLUE = (82, 90, 240), (41, 240, 110)


def film(camera: Path, colour: tuple[int, int, int]) -> None:
    """Put a scene of uncompressed video in front of the camera: a colour that flickers as real ones do."""
    noise = np.random.default_rng(1)
    with camera.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for _ in range(RATE):
            file.write(b"FRAME\n")
            for value, size in zip(
                colour, (WIDTH * HEIGHT, WIDTH * HEIGHT // 4, WIDTH * HEIGHT // 4), strict=True
            ):
                file.write(np.clip(noise.normal(value, 6, size), 0, 255).astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def teaching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that can be taught, on the bundled base or on one whose features are mean colours."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, "base", model=TinyModel(features=True))
    (models / BUNDLED).symlink_to(bundled_models() / BUNDLED)
    with running_server(models, TEACH_DIR=tmp_path_factory.mktemp("taught")) as running:
        yield running


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("camera") / "scene.y4m"
    film(file, RED)
    return file


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, camera: Path) -> Iterator[Page]:
    """A browser whose camera plays a file, which it reads each time that the camera is opened."""
    need("chromium", package="chromium")
    flags = (
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )  # fmt: skip
    with browser(tmp_path_factory.mktemp("profile"), *flags) as page:
        yield page


def aim(page: Page, camera: Path, colour: tuple[int, int, int]) -> None:
    """Close the camera and put something else in front of it."""
    if page.text("#camera-toggle") == "Close camera":
        page.click("#camera-toggle")
        page.wait_for(f"{IDLE} && document.getElementById('teach-camera').hidden")
    film(camera, colour)


def record(page: Page, label: str, clips: int) -> None:
    page.wait_for(IDLE)
    page.click(f'[data-do="record {label}"]')
    page.wait_for(f"{COUNT.format(label, f'{clips} clip' + 's' * (clips > 1))} && {IDLE}")


def test_two_labels_are_recorded_taught_and_recognized(
    teacher: Page, camera: Path, teaching: RunningServer, tmp_path: Path
) -> None:
    page = opened(teacher, teaching.url)
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#to-teach")
    page.wait_for("document.getElementById('base').options.length")
    page.enter("#taught-name", "colours")
    page.enter("#base", BUNDLED)
    assert page.evaluate("document.getElementById('teach-seconds').value") == "3"
    page.enter("#teach-seconds", 1)
    for label in ("stop", "go"):
        page.enter("#label-name", label)
        page.evaluate("document.getElementById('label-form').requestSubmit()")
    for label, colour in (("stop", RED), ("go", BLUE)):
        aim(page, camera, colour)
        for clips in range(1, 6):
            record(page, label, clips)
    check_looks(page)
    # Showing the models loses nothing.
    page.evaluate("location.hash = 'models'")
    page.wait_for("!document.getElementById('view-models').hidden")
    page.evaluate("location.hash = 'teach'")
    page.wait_for(
        "!document.getElementById('teach').hidden && !document.getElementById('teach-button').disabled"
    )
    page.click("#teach-button")
    page.wait_for("!document.getElementById('report').hidden")
    assert page.text("#report-score").split("\n")[0] == "100 %"
    assert "10 of 10 clips" in page.text("#report-score")
    page.wait_for(IDLE)
    assert page.evaluate("document.getElementById('taught').value") == "colours"
    assert "After teaching" not in page.text("#labels")
    assert table(page, "#confusion table") == [["Label", "go", "stop"], ["go", "5", "0"], ["stop", "0", "5"]]
    check_looks(page)
    # A sixth take of each is labelled correctly at once.
    for label, colour in (("go", BLUE), ("stop", RED)):
        aim(page, camera, colour)
        page.wait_for("!document.getElementById('try').disabled")
        page.click("#try")
        page.wait_for(f"document.querySelector('#try-bars .name')?.textContent === '{label}' && {IDLE}")
        assert page.text("#news").startswith(f"The take looks like {label}, ")
    # A clip with the wrong label lowers the accuracy, is found, and is removed.
    record(page, "go", 6)
    assert "The model says “stop”" in page.text('[data-label="go"] .take.wrong')
    page.click("#teach-button")
    page.wait_for("!document.getElementById('suspects-part').hidden")
    assert "Clip 6 of “go” looks like “stop”" in page.text("#suspects")
    page.click("#suspects button")
    page.wait_for(COUNT.format("go", "5 clips"))
    page.wait_for(IDLE)
    page.click("#export")
    package = tmp_path / "colours.zip"
    teaching.wait_for(package.exists, "the exported package")
    assert {Path(name).name for name in zipfile.ZipFile(package).namelist()} >= {"model.json", "head.npz"}
    assert page.evaluate("[...document.getElementById('model').options].map((one) => one.value)") == [
        "base",
        BUNDLED,
        "colours",
    ]
    assert teaching.get("/v1/taught/colours").json()["base"]["name"] == BUNDLED
    assert page.complaints == []


def test_files_are_dropped_on_labels_and_bad_ones_are_named(
    teacher: Page, teaching: RunningServer, clip: Path, tmp_path: Path
) -> None:
    page = opened(teacher, teaching.url)
    page.click("#to-teach")
    page.wait_for("document.getElementById('taught').options.length === 2")
    page.enter("#taught", "")
    page.wait_for("!document.getElementById('new-model').hidden")
    page.enter("#label-name", "any")
    page.evaluate("document.getElementById('label-form').requestSubmit()")
    for name, message in (("", "has no name"), ("two words", "Use letters, digits")):
        page.enter("#taught-name", name)
        page.drop('[data-label="any"]', clip)
        page.wait_for(f"document.getElementById('teach-problem-text').textContent.includes('{message}')")
        assert page.evaluate("document.activeElement.id") == "taught-name"
        assert page.text('[data-label="any"] .count') == "0 clips"
    page.enter("#taught-name", "files")
    page.drop('[data-label="any"]', clip)
    page.wait_for(f"{COUNT.format('any', '1 clip')} && {IDLE}")
    assert page.evaluate("document.getElementById('teach-button').disabled")
    (text := tmp_path / "text.mp4").write_text("not a clip, just words. " * 100)
    page.drop('[data-label="any"]', text)
    page.wait_for("!document.getElementById('teach-problem').hidden")
    assert page.text("#teach-problem-text").startswith("text.mp4: Not a supported video. The file is not")
    page.complaints.clear()  # the browser itself logs the status
    page.evaluate("window.confirm = () => true")
    page.click("#forget")
    page.wait_for("[...document.getElementById('taught').options].every((one) => one.value !== 'files')")
    assert page.complaints == []


def test_teaching_that_is_off_says_how_to_switch_it_on(teacher: Page, server: RunningServer) -> None:
    page = opened(teacher, server.url)
    page.click("#to-teach")
    page.wait_for("!document.getElementById('teach-off').hidden")
    assert "BLVNET_TEACH_DIR" in page.text("#teach-off")
    assert page.complaints == []


def test_recording_of_the_camera_is_classified(teacher: Page, camera: Path, teaching: RunningServer) -> None:
    page = opened(teacher, teaching.url)
    film(camera, BLUE)
    page.click("#record")
    page.wait_for("!document.getElementById('camera').hidden")
    page.click("#shoot")
    page.wait_for("document.getElementById('bars').children.length")
    assert page.text("#headline strong") == "blue"
    assert page.evaluate("document.getElementById('camera').hidden")
    assert page.text("#runs .file").startswith("recording-")
    assert page.complaints == []


SLOW_PERMISSION = """
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  globalThis.streams = [];
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    await new Promise((resolve) => { globalThis.allow = [...(globalThis.allow ?? []), resolve]; });
    const stream = await ask(wanted);
    streams.push(stream);
    return stream;
  };
"""
ALLOW = "for (const resolve of allow.splice(0)) resolve();"
ACTIVE = "streams.filter((stream) => stream.active).length"


def test_camera_that_is_allowed_after_the_view_was_left_is_switched_off(
    teacher: Page, teaching: RunningServer
) -> None:
    page = opened(teacher, teaching.url)
    page.evaluate(SLOW_PERMISSION)
    page.click("#record")
    page.wait_for("globalThis.allow?.length === 1")
    page.click("#to-models")
    page.wait_for("!document.getElementById('view-models').hidden")
    page.evaluate(ALLOW)
    page.wait_for("streams.length === 1")
    page.wait_for(f"{ACTIVE} === 0")
    page.click("#to-classify")
    page.wait_for("!document.getElementById('view-classify').hidden")
    assert page.evaluate("document.getElementById('camera').hidden")
    assert page.evaluate("document.getElementById('problem').hidden")
    assert page.complaints == []


def test_camera_that_is_opened_twice_is_switched_off_as_a_whole(
    teacher: Page, teaching: RunningServer
) -> None:
    page = opened(teacher, teaching.url)
    page.evaluate(SLOW_PERMISSION)
    page.click("#record")
    page.click("#record")
    page.wait_for("globalThis.allow?.length === 2")
    page.evaluate(ALLOW)
    page.wait_for(f"streams.length === 2 && {ACTIVE} === 1 && !document.getElementById('camera').hidden")
    page.click("#record")
    page.wait_for(f"{ACTIVE} === 0")
    assert page.complaints == []

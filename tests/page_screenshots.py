"""Take the screenshots of the web page for the documentation: python -m tests.page_screenshots."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.support.browser import Page, browser
from tests.support.server import running_server

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1180, 1010
DONE = "document.querySelectorAll('#runs .state.done').length === {}"


def save(page: Page, target: Path) -> None:
    """Save the visible part of the page."""
    file = io.BytesIO(page.picture())
    with Image.open(file) as image:
        image.convert("RGB").save(target, quality=90, method=6)


def stop_at(page: Page, seconds: float) -> None:
    """Pause the player at a moment, once everything is drawn."""
    page.wait_for("document.getElementById('video').readyState > 1")
    page.evaluate(
        f"document.getElementById('video').pause(); document.getElementById('video').currentTime = {seconds}"
    )
    page.wait_for("!document.getElementById('video').seeking")
    page.evaluate("scrollTo(0, 0)")
    time.sleep(3)  # until the controls fade and the frame is painted


def main() -> None:
    """Classify two of the samples with the bundled model."""
    with (
        tempfile.TemporaryDirectory() as profile,
        running_server(ROOT / "service" / "demo_models") as server,
        browser(Path(profile)) as page,
    ):
        page.look(WIDTH, HEIGHT)
        page.open(f"{server.url}/")
        page.wait_for("document.getElementById('model').options.length")
        for number, (sample, seconds, name) in enumerate(
            (("turning.mp4", 2.0, "page-clip.webp"), ("five-scenes.mp4", 9.5, "page-timeline.webp")), 1
        ):
            page.look(WIDTH, HEIGHT, "light" if number == 1 else "dark")
            page.click(f"[data-sample='{sample}']")
            page.wait_for(DONE.format(number))
            stop_at(page, seconds)
            save(page, ROOT / "docs" / name)


if __name__ == "__main__":
    main()

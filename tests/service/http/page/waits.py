"""Conditions that tests of the page wait for, and values that they read from it."""

from __future__ import annotations

from typing import Any

from tests.support.browser import Page

CLIP_DONE = "!document.getElementById('result').hidden && document.getElementById('bars').children.length"
TIMELINE_DONE = "document.getElementById('windows-note').textContent.startsWith('Done')"
PROBLEM = "!document.getElementById('problem').hidden"


def table(page: Page, selector: str) -> list[list[str]]:
    """The texts of a table's cells, row by row."""
    rows: list[list[str]] = page.evaluate(
        f"[...document.querySelector('{selector}').rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )
    return rows


def answer(page: Page) -> Any:
    """The answer of the service as the page shows it under "Use it"."""
    page.click("#tab-json")
    return page.evaluate("JSON.parse(document.getElementById('snippet').textContent)")


def time_of(page: Page) -> float:
    """The player's moment in seconds."""
    return float(page.evaluate("document.getElementById('video').currentTime"))


def pause(page: Page) -> None:
    """Pause the player once it plays."""
    page.wait_for("document.getElementById('video').readyState > 1")
    page.evaluate("document.getElementById('video').pause()")

"""Controls a headless Chromium through the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60.0
POLL_S = 0.05
FLAGS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--mute-audio", "--hide-scrollbars",
)  # fmt: skip


class Page:
    """A page; `requests` lists its requested URLs, `complaints` its console messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last_id = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._last_id += 1
        self._connection.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(PATIENCE_S))
            if message.get("id") == self._last_id:
                assert "error" not in message, f"{method}: {message.get('error')}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def open(self, url: str) -> None:
        """Open a URL and wait until it has loaded."""
        self.command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is truthy and return its value."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if value := self.evaluate(expression):
                return value
            time.sleep(POLL_S)
        raise AssertionError(f"never true: {expression}; the page shows:\n{self.text('body')}")

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click an element, as a script does."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def each(self, selector: str, expression: str) -> list[Any]:
        """The value of an expression of `one` for each element that the selector matches."""
        found = f"document.querySelectorAll({json.dumps(selector)})"
        return list(self.evaluate(f"[...{found}].map((one) => ({expression}))"))

    def enter(self, selector: str, value: object) -> None:
        """Set the value of a field, like a user who then leaves it."""
        self.evaluate(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)});"
            f" field.value = {json.dumps(str(value))};"
            " for (const kind of ['input', 'change'])"
            " field.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    def point(self, selector: str, share: float = 0.5) -> tuple[float, float]:
        """A point in the middle of the height of an element, at a share of its width, scrolled into view."""
        x, y = self.evaluate(
            f"(() => {{ const target = document.querySelector({json.dumps(selector)});"
            " target.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = target.getBoundingClientRect();"
            f" return [box.left + {share} * box.width, box.top + box.height / 2]; }})()"
        )
        return x, y

    def hover(self, selector: str, share: float = 0.5) -> None:
        """Move the mouse to an element."""
        x, y = self.point(selector, share)
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def swipe_up(self, selector: str, distance: int = 150) -> None:
        """Swipe with a finger that begins on an element."""
        x, y = self.point(selector)
        self.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        for step in range(1, 11):
            moved = [{"x": x, "y": y - distance * step / 10}]
            self.command("Input.dispatchTouchEvent", type="touchMove", touchPoints=moved)
            time.sleep(POLL_S)
        self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def drop(self, selector: str, *dropped: Path) -> None:
        """Drop files onto an element."""
        x, y = self.point(selector)
        data = {"items": [], "files": [str(file) for file in dropped], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def look(self, width: int, height: int = 900, scheme: str = "light", *, touch: bool = False) -> None:
        """Set the size of the window, the colour scheme, and whether it is a phone."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.command("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[scheme_feature])

    def axe(self) -> list[str]:
        """The accessibility faults that axe finds, one line for each."""
        if not self.evaluate("'axe' in window"):
            self.evaluate(f"{axe_source()}; true")
        return list(
            self.evaluate(
                "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.flatMap("
                "(rule) => rule.nodes.map((node) => `${rule.id}: ${node.html} ${node.failureSummary}`)))"
            )
        )

    def choose_file(self, selector: str, file: Path) -> None:
        """Select a file in a file input."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def picture(self) -> bytes:
        """The visible part of the page as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot")["data"])

    def screenshot(self, file: Path) -> None:
        """Save a screenshot of the whole page."""
        data = self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))


@cache
def axe_source() -> str:
    """The script of axe."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


@contextmanager
def browser(folder: Path, *flags: str) -> Iterator[Page]:
    """Start Chromium with a new profile in `folder` and one empty page."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # required to start as root
    command = ["chromium", *FLAGS, *flags, *sandbox, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with connect(_page_address(folder, process), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()


def _page_address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """The page's DevTools socket, once Chromium has written its port file."""
    port_file = folder / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and (lines := port_file.read_text().splitlines()):
            pages = httpx.get(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE_S).json()
            if addresses := [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]:
                return str(addresses[0])
        time.sleep(POLL_S)
    raise AssertionError("Chromium does not start")

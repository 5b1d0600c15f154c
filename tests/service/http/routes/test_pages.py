"""The files of the web page and of the API documentation: policies, compression, revalidation, size."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.browser import Page, browser
from tests.support.server import RunningServer
from tests.support.tools import need

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "service" / "http" / "page"
PAGE_FILES = sorted(file.name for file in PAGE.iterdir() if file.is_file())
BUDGET_BYTES = 120_000
LARGEST_MODULE = 300  # lines


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_page_is_small_and_made_of_small_modules() -> None:
    contents = {name: (PAGE / name).read_text() for name in PAGE_FILES}
    assert sum(len(text.encode()) for text in contents.values()) < BUDGET_BYTES
    assert {
        name: text.count("\n") for name, text in contents.items() if text.count("\n") > LARGEST_MODULE
    } == {}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_carries_a_policy_and_cannot_be_framed(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert (
        policy.items()
        >= {
            "default-src": "'none'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
        }.items()
    )
    assert "unsafe" not in policy["script-src"]
    assert answer.headers["Permissions-Policy"].startswith("camera=(self)")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_page_has_no_inline_script_or_style(client: httpx.Client) -> None:
    html = client.get("/").text
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html) == []


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/page/base.css", "/docs", "/docs/swagger-ui-bundle.js"]
)
def test_text_is_compressed_and_not_sent_again(client: httpx.Client, path: str) -> None:
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    zipped = client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.8"})
    assert (zipped.headers["Content-Encoding"], "Content-Encoding" in plain.headers) == ("gzip", False)
    assert zipped.content == plain.content
    assert (
        int(zipped.headers["Content-Length"])
        == len(gzip.compress(plain.content, mtime=0))
        < len(plain.content)
    )
    assert plain.headers["ETag"] != zipped.headers["ETag"]
    again = client.get(
        path, headers={"Accept-Encoding": "gzip", "If-None-Match": f'"other", W/{zipped.headers["ETag"]}'}
    )
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", zipped.headers["ETag"])
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_client_that_refuses_gzip_gets_plain_text(client: httpx.Client) -> None:
    answer = client.get("/page/main.js", headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", PAGE_FILES)
def test_files_of_the_page_have_their_types(client: httpx.Client, name: str) -> None:
    expected = {"js": "text/javascript", "css": "text/css", "html": "text/html"}[name.rpartition(".")[2]]
    assert client.get(f"/page/{name}").headers["Content-Type"].startswith(expected)


@pytest.mark.parametrize("sample", sorted(file.name for file in (PAGE / "samples").iterdir()))
def test_samples_are_small_videos_that_the_service_decodes(client: httpx.Client, sample: str) -> None:
    video = client.get(f"/page/samples/{sample}")
    assert video.headers["Content-Type"] == "video/mp4"
    assert len(video.content) < 100_000
    assert client.post("/v1/classify", files={"file": video.content}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/page/nonesuch.js", "/page/../routes/pages.py", "/page/%2e%2e/app.py", "/page/samples", "/docs/x"],
)
def test_other_files_are_not_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_documentation_loads_only_local_files_in_the_colours_of_the_system(
    server: RunningServer, tmp_path: Path
) -> None:
    need("chromium", package="chromium")
    with browser(tmp_path) as page:
        page.look(1440, scheme="dark")
        page.open(f"{server.url}/docs")
        page.wait_for("document.querySelectorAll('.opblock').length")
        elsewhere = [url for url in page.requests if not url.startswith((f"{server.url}/", "data:"))]
        assert (elsewhere, page.complaints) == ([], [])
        assert is_light(page, "backgroundColor", ".swagger-ui") is False
        assert is_light(page, "color", ".opblock-summary-description") is True
        page.look(1440, scheme="light")
        page.wait_for("!document.documentElement.classList.contains('dark-mode')")
        assert is_light(page, "backgroundColor", ".swagger-ui") is True
        assert is_light(page, "color", ".opblock-summary-description") is False


def is_light(page: Page, what: str, selector: str) -> bool:
    """Whether a colour of an element is light; nothing is drawn on white."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    red, green, blue, *alpha = (float(part) for part in re.findall(r"[\d.]+", colour))
    return alpha == [0] or red + green + blue > 1.5 * 255

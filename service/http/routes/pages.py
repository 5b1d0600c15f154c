"""The web page and the API documentation.

Both are self-contained. Their content security policies allow only files of this server, and no other site
can frame them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import Response

from service.http.dependencies import CurrentService
from service.http.transfer.static_files import StaticFile

router = APIRouter(include_in_schema=False)

DOCS_PATH = "/docs"
PAGE_PATH = "/page"
OPENAPI_PATH = "/openapi.json"
# Files of Swagger UI, from the package fastapi-offline.
DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
MEDIA_TYPES = {
    "css": "text/css", "html": "text/html", "js": "text/javascript", "mp4": "video/mp4", "png": "image/png",
}  # fmt: skip
COMMON_POLICY = (
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Videos and recordings are played from memory; images of frames are `data:` URLs.
PAGE_POLICY = f"{COMMON_POLICY}; script-src 'self'; style-src 'self'; media-src blob:; img-src data:"
COMMON_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@router.head("/")
@router.get("/")
async def page(request: Request, service: CurrentService) -> Response:
    """The web page, with the settings that it needs before it can send a request."""
    headers = COMMON_HEADERS | {"Content-Security-Policy": PAGE_POLICY}
    teaching = "off"
    if service.teacher is not None:
        teaching = "admin" if service.admin_key.is_set else "on"
    html = _page_files()["index.html"].content.decode()
    html = html.replace('data-keys="none"', f'data-keys="{"none" if service.keys.open else "needed"}"', 1)
    html = html.replace('data-teaching="off"', f'data-teaching="{teaching}"', 1)
    return StaticFile(html.encode(), "text/html").response(request, headers)


@router.get(PAGE_PATH + "/{name:path}")
async def page_file(name: str, request: Request) -> Response:
    """A module, style sheet or sample video of the page."""
    if name not in _page_files():
        raise HTTPException(404)
    return _page_files()[name].response(request, COMMON_HEADERS)


@router.get(DOCS_PATH)
async def docs(request: Request) -> Response:
    """Swagger UI."""
    html = bytes(
        get_swagger_ui_html(
            openapi_url=f".{OPENAPI_PATH}",
            title=f"{request.app.title}: API",
            swagger_js_url=f".{DOCS_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f".{DOCS_PATH}/swagger-ui.css",
            swagger_favicon_url=f".{DOCS_PATH}/favicon.png",
        ).body
    ).decode()
    # Swagger UI has colours for dark mode, but the page has to select them.
    html = html.replace("<head>", f'<head><script src=".{PAGE_PATH}/docs.js"></script>', 1)
    script_hashes = " ".join(map(_hash, INLINE_SCRIPT.findall(html)))
    # Swagger UI sets inline styles from scripts, which no hash can allow.
    policy = (
        f"{COMMON_POLICY}; script-src {script_hashes} 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:"
    )
    headers = COMMON_HEADERS | {"Content-Security-Policy": policy}
    return StaticFile(html.encode(), "text/html").response(request, headers)


@router.get(DOCS_PATH + "/{name}")
async def docs_file(name: str, request: Request) -> Response:
    """A file of Swagger UI."""
    if name not in DOCS_FILES:
        raise HTTPException(404)
    return _docs_file(name).response(request, COMMON_HEADERS)


@lru_cache
def _page_files() -> dict[str, StaticFile]:
    """Read every file of the page, by its path. All are read in advance, so no requested path is opened."""
    folder = files("service.http").joinpath("page")
    found = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
    samples = folder.joinpath("samples")
    found |= {f"{samples.name}/{entry.name}": entry for entry in samples.iterdir()}
    return {name: _read(entry) for name, entry in found.items()}


@lru_cache
def _docs_file(name: str) -> StaticFile:
    return _read(files("fastapi_offline").joinpath("static", name))


def _read(file: Traversable) -> StaticFile:
    return StaticFile(file.read_bytes(), MEDIA_TYPES[file.name.rpartition(".")[2]])


def _hash(script: str) -> str:
    """The source of an inline script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

"""For people with a browser: a page to try the service with, and the API's documentation.

Neither loads anything from elsewhere, and a content security policy holds them to it: only the very scripts
that were written into them run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

DOCS_PATH = "/docs"
OPENAPI_PATH = "/openapi.json"
# Swagger UI as the package fastapi-offline carries it, by the path below which it is served here.
DOCS_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
COMMON_POLICY = (
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@router.get("/")
async def page() -> Response:
    """The page to try the service with."""
    html = _page()
    policy = f"{COMMON_POLICY}; {_hashes(html)}; media-src blob:; img-src data:"
    return _html(html, policy)


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
    # Swagger UI sets styles on its elements, which no hash can allow.
    policy = (
        f"{COMMON_POLICY}; {_hashes(html)} 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
    )
    return _html(html, policy)


@router.get(DOCS_PATH + "/{name}")
async def docs_file(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in DOCS_FILES:
        raise HTTPException(404)
    return Response(_docs_file(name), media_type=DOCS_FILES[name], headers={"Cache-Control": "max-age=86400"})


def _html(html: str, policy: str) -> HTMLResponse:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(html, headers=headers)


@lru_cache
def _page() -> str:
    return files("service.http").joinpath("page", "index.html").read_text(encoding="utf-8")


@lru_cache
def _docs_file(name: str) -> bytes:
    return files("fastapi_offline").joinpath("static", name).read_bytes()


@lru_cache
def _hashes(html: str) -> str:
    """The policy's directives for the scripts and styles that are written into `html`."""
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
    return "; ".join(f"{kind}-src {' '.join(hashes)}" for kind, hashes in sources.items() if hashes)

"""Writes the OpenAPI document of a service with API keys to openapi.json beside this file: `make openapi`."""

from __future__ import annotations

import json
from pathlib import Path

from service.http.app import create_app
from service.settings import load_settings

DOCUMENT = Path(__file__).with_name("openapi.json")


def openapi_text() -> str:
    """The document as it is committed."""
    document = create_app(load_settings({"api_keys": "key"})).openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(openapi_text(), encoding="utf-8")

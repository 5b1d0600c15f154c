"""The OpenAPI document in the documentation is the one that the service generates."""

from __future__ import annotations

import difflib
from itertools import islice

from docs.write_openapi import DOCUMENT, openapi_text

SHOWN_LINES = 40


def test_committed_document_is_that_of_the_service() -> None:
    committed = DOCUMENT.read_text(encoding="utf-8").splitlines()
    difference = difflib.unified_diff(committed, openapi_text().splitlines(), "docs", "service", lineterm="")
    shown = "\n".join(islice(difference, SHOWN_LINES))
    assert not shown, f"if the interface changed on purpose, run `make openapi`:\n{shown}"

"""The OpenAPI document in the documentation is the one that the service generates."""

from __future__ import annotations

import difflib
import runpy
from itertools import islice
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
SHOWN_LINES = 40


def test_committed_document_is_that_of_the_service() -> None:
    committed = (DOCS / "openapi.json").read_text(encoding="utf-8").splitlines()
    generated = runpy.run_path(str(DOCS / "write_openapi.py"))["openapi_text"]().splitlines()
    difference = difflib.unified_diff(committed, generated, "docs", "service", lineterm="")
    shown = "\n".join(islice(difference, SHOWN_LINES))
    assert not shown, f"if the interface changed on purpose, run `make openapi`:\n{shown}"

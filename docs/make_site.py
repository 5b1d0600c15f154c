"""Builds the documentation as a site that makes no request to other hosts: `make docs`.

The pages of this folder are copied, with the reports of the benchmarks and a reference of the HTTP interface
that is made from `openapi.json`. Zensical then builds the site; a warning fails the build. To
read it: `python -m http.server --directory build/site`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import fastapi_offline

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BUILD = ROOT / "build" / "docs"
RESULTS = ROOT / "benchmarks" / "results"
RESULTS_LINK = "](../benchmarks/results/"
# A link to a file of the repository, which is not part of the site.
FILE_LINK = re.compile(r"\[([^\]]*)\]\(\.\./([^)]*)\)")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HTTP reference - blvnet-serve</title>
<body style="margin: 0">
<div id="redoc"></div>
<script src="redoc.standalone.js"></script>
<script>Redoc.init({document}, {{disableSearch: true}}, document.getElementById("redoc"))</script>
"""


def main() -> int:
    """Build the site in `build/site`; return the exit status of Zensical."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(DOCS, BUILD, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(RESULTS, BUILD / "results", ignore=shutil.ignore_patterns("*.json"))
    for page in BUILD.rglob("*.md"):
        text = page.read_text(encoding="utf-8").replace(RESULTS_LINK, "](results/")
        page.write_text(FILE_LINK.sub(r"\1 (`\2`)", text), encoding="utf-8")
    _write_http_reference(BUILD / "http")
    zensical = Path(sys.executable).with_name("zensical")
    return subprocess.run([zensical, "build", "--clean", "--strict"], cwd=ROOT, check=False).returncode


def _write_http_reference(folder: Path) -> None:
    """A page of its own, which draws the OpenAPI document with the copy of Redoc that the service has too."""
    folder.mkdir()
    document = (DOCS / "openapi.json").read_text(encoding="utf-8").replace("</", "<\\/")
    (folder / "index.html").write_text(PAGE.format(document=document), encoding="utf-8")
    static = Path(fastapi_offline.__file__).parent / "static"
    shutil.copy(static / "redoc.standalone.js", folder)


if __name__ == "__main__":
    sys.exit(main())

"""The site of the documentation builds without warnings and needs no network."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.observability import ROOT


def test_site_builds_without_a_warning_and_needs_no_network() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_site.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "build" / "site"
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert loaded == [], page
    assert "classify" in (site / "http" / "index.html").read_text()
    assert "Client.classify" in (site / "python.html").read_text()

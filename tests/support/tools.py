"""System programs that tests use."""

from __future__ import annotations

import shutil

import pytest


def need(*programs: str, package: str) -> None:
    """Fail the test if a program is missing, naming its package."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found; on Debian: apt install {package}")

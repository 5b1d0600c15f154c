"""System programs that tests use."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str, package: str) -> None:
    """Fail the test if a program is missing, naming its package; skip it for users who cannot install it."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not found; on Debian: apt install {package}"
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip(reason)
    pytest.fail(reason)

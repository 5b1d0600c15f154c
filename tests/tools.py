"""Programs of the system that tests drive."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*programs: str, package: str) -> None:
    """Skip the test where `programs` are missing, naming what to install; fail where CI has to have them."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not found; on Debian: apt install {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

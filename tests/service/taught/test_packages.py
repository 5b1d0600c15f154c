"""Downloads of packages that are deleted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import ModelNotFound
from service.taught.packages import TaughtPackages


def test_package_that_is_deleted_before_it_is_read_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "hues" / "1").mkdir(parents=True)
    (tmp_path / "hues" / "1" / "head.npz").write_bytes(b"head")
    models: Any = SimpleNamespace(registry=SimpleNamespace(versions=lambda _name: {1: None}))
    packages = TaughtPackages(tmp_path, models)
    file, read = packages.serving("hues")
    assert file == "hues-1.zip"
    assert read().startswith(b"PK")
    packages.delete("hues")
    with pytest.raises(ModelNotFound, match="hues/1 has been deleted"):
        read()

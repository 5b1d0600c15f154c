"""Changes of one taught model at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.errors import ModelNotFound
from service.observer import Observer
from service.packages.manifest import BaseReference
from service.taught.lessons import TeachLimits
from service.taught.store import ExampleRecord
from service.taught.teacher import Teacher

BASE = BaseReference(name="colours", version=1, sha256="0" * 64)
EXAMPLE = ExampleRecord(label="warm", group=None, added_at="2026-01-01T00:00:00+00:00", base=BASE)


class Models:
    """A repository in which `hues` has a package that takes time to unload."""

    def __init__(self) -> None:
        self.unloading, self.unloaded = asyncio.Event(), asyncio.Event()
        self.listing = self

    def taught_names(self) -> set[str]:
        return set() if self.unloaded.is_set() else {"hues"}

    async def unload(self, name: str) -> None:
        self.unloading.set()
        await self.unloaded.wait()

    async def refresh(self) -> None:
        """There is nothing to list."""


@pytest.mark.anyio
async def test_model_that_is_being_deleted_is_neither_trained_nor_listed(tmp_path: Path) -> None:
    models = Models()
    recognizer: Any = SimpleNamespace(models=models)
    teacher = Teacher(tmp_path, recognizer, TeachLimits(9, 10**6, 9), Observer())
    teacher.store.add("hues", "a", EXAMPLE, np.zeros((2, 4, 3), np.float32))
    deletion = asyncio.create_task(teacher.remove("hues"))
    await models.unloading.wait()
    assert teacher.names() == []
    with pytest.raises(ModelNotFound):
        await teacher.train("hues", mirror=False)
    models.unloaded.set()
    await deletion
    assert teacher.names() == []
    teacher.store.add("hues", "a", EXAMPLE, np.zeros((2, 4, 3), np.float32))  # the name is free again
    assert teacher.names() == ["hues"]
    teacher.close()

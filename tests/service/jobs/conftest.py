"""Places for jobs."""

from __future__ import annotations

import pytest

from tests.support.job_places import Place, new_place


@pytest.fixture(params=["folder", "redis"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An empty place for jobs, of each kind."""
    return new_place(request, tmp_path_factory, 3)

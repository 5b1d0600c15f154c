"""Shared fixtures: tiny models, an exported network, and one server for the whole run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import colour_clip, write_package

if TYPE_CHECKING:
    from tests.model_export.exported import SmallExport


# The slowest files, which start first: a file is not split, and a slow one that starts last would leave the
# other processes without work. Each takes more than half a minute.
SLOW_FILES = (
    "model_export/test_every_family.py",
    "service/http/routes/test_jobs.py",
    "model_export/training/test_trainer.py",
    "deployment/test_containers.py",
    "model_export/training/test_processes.py",
    "model_export/export/test_golden.py",
    "docs/test_readme.py",
    "docs/test_commands.py",
    "model_export/export/test_onnx_graph.py",
    "benchmarks/test_inference.py",
    "model_export/training/test_several_labels.py",
    "service/test_ray_cluster.py",
    "deployment/test_proxies.py",
    "deployment/test_ray_monitoring.py",
    "service/test_server.py",
    "test_hostile.py",
    "test_fuzz.py",
    "service/models/test_engine_selection.py",
    "service/test_batch.py",
)


def pytest_configure() -> None:
    # Exports and long runs keep many objects; with the usual 700, collections take a tenth of their time.
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    order = {folder / name: position for position, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=int, default=30, help="how long mutated clips are tried (30)")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache folder instead of the user's, also for servers that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with one tiny model, `tiny`."""
    models = tmp_path_factory.mktemp("models")
    write_package(models)
    return models


@pytest.fixture(scope="session")
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of `server`."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def server(tiny_models: Path, upload_folder: Path) -> Iterator[RunningServer]:
    """A server shared by many tests; its low limits keep oversized test videos small."""
    variables = {"TMPDIR": str(upload_folder)}
    with running_server(tiny_models, variables, MAX_UPLOAD_MB=2, MAX_PIXELS=500_000) as running:
        yield running


@pytest.fixture(scope="session")
def red_clip() -> bytes:
    """A video that the tiny model labels red."""
    return colour_clip((255, 0, 0))


@pytest.fixture(scope="session")
def small_export(tmp_path_factory: pytest.TempPathFactory) -> SmallExport:
    """A small network exported with `blvnet export`."""
    from tests.model_export.exported import export_small

    return export_small(tmp_path_factory.mktemp("export"))

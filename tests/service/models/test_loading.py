"""Loading of a package from its folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from service.engines.providers import EngineConfig
from service.errors import PackageError
from service.models.engine_selection import open_package
from service.models.loading import Model, describe, load_package
from service.packages.folders import Package
from tests.support.tiny_models import TinyModel, write_package


def load(folder: Path, name: str = "tiny", threads: int = 1) -> Model:
    config = EngineConfig("cpu", threads=threads)
    return load_package(Package(name, 1, folder), partial(open_package, config=config))


@pytest.mark.parametrize(
    ("features", "names", "size"),
    [(False, ("logits", "evidence"), None), (True, ("logits", "evidence", "features"), 3)],
)
def test_model_reports_its_outputs_and_the_size_of_its_features(
    tmp_path: Path, features: bool, names: tuple[str, ...], size: int | None
) -> None:
    model = load(write_package(tmp_path, model=TinyModel(features=features)))
    assert (model.output_names, model.feature_size) == (names, size)
    model.opened.close()


@pytest.mark.parametrize("name", ["caf\\xe9", "two words", ".hidden"])
def test_folder_name_that_cannot_be_a_model_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError, match="the folder's name must be letters"):
        load(write_package(tmp_path), name)


def test_description_names_engine_and_latencies(tmp_path: Path) -> None:
    model = load(write_package(tmp_path), threads=2)
    text = describe(model.opened)
    assert text.startswith(f"{model.session.runtime}, asked; a single clip takes ")
    assert " ms, 2 concurrent ones " in text
    model.opened.close()

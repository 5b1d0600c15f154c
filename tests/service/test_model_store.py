from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest

from service.errors import ModelNotFound, PackageError, ProviderUnavailable
from service.manifest import GRAPH_FILE, MANIFEST_FILE
from service.model_store import ModelState, ModelStore
from service.runtime.choice import open_package
from service.runtime.config import RuntimeConfig
from tests.tiny_models import TinyModel, write_package

on_cpu = partial(open_package, config=RuntimeConfig("cpu"))


def loaded(models: Path, default: str | None = None) -> ModelStore:
    store = ModelStore(models, on_cpu, default)
    store.load()
    return store


def summary(store: ModelStore) -> list[tuple[str, int, str]]:
    return [(entry.name, entry.version, entry.state.value) for entry in store.entries()]


def damage(folder: Path) -> None:
    with (folder / GRAPH_FILE).open("ab") as file:
        file.write(b"\0")


def test_a_good_package_serves(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    store = loaded(tmp_path)
    model = store.get("walk")
    assert (model.manifest.name, model.session.runtime.provider) == ("walk", "cpu")
    (entry,) = store.entries()
    assert (entry.state, entry.manifest, entry.provider) == (ModelState.READY, model.manifest, "cpu")
    assert entry.reason is None


def test_the_highest_version_serves(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        write_package(tmp_path, "walk", version)
    assert loaded(tmp_path).get("walk").manifest.version == 10


def test_the_next_version_serves_where_the_highest_is_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_package(tmp_path, "walk", 1)
    damage(write_package(tmp_path, "walk", 2))
    with caplog.at_level(logging.ERROR):
        store = loaded(tmp_path)
    assert store.get("walk").manifest.version == 1
    assert summary(store) == [("walk", 2, "refused"), ("walk", 1, "ready")]
    assert "model walk/2 is refused: model.onnx has SHA-256" in caplog.text


def test_a_bad_package_is_refused_by_reason_and_the_others_serve(tmp_path: Path) -> None:
    write_package(tmp_path, "good")
    damage(write_package(tmp_path, "changed"))
    (write_package(tmp_path, "mute") / MANIFEST_FILE).unlink()
    (write_package(tmp_path, "empty") / GRAPH_FILE).unlink()
    shutil.move(write_package(tmp_path, "own-name"), tmp_path / "other-name" / "1")
    write_package(tmp_path, "wide", model=TinyModel(classes=9))
    store = loaded(tmp_path)
    reasons = {entry.name: entry.reason for entry in store.entries() if entry.state is ModelState.REFUSED}
    assert [model.manifest.name for model in store.models()] == ["good"]
    assert reasons.pop("changed", "").startswith("model.onnx has SHA-256 ")  # type: ignore[union-attr]
    assert reasons == {
        "mute": "there is no model.json",
        "empty": "model.onnx cannot be read",
        "other-name": "the manifest is that of own-name/1",
        "wide": "output logits has shape (N, 9), it must be (N, 3)",
    }


def test_a_reason_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    write_package(tmp_path, "good")
    (write_package(tmp_path, "torn") / MANIFEST_FILE).write_text("{")
    reasons = [entry.reason for entry in loaded(tmp_path).entries() if entry.reason]
    assert reasons == ["model.json cannot be read as JSON"]


@pytest.mark.parametrize("gmacs", [0, -1, True, "23.85", float("inf")])
def test_costs_that_cannot_be_are_refused(tmp_path: Path, gmacs: object) -> None:
    write_package(tmp_path, "tiny", gmacs=gmacs)
    with pytest.raises(PackageError, match="gmacs must be a number above 0"):
        loaded(tmp_path)


def test_what_is_no_package_is_not_looked_at(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    for other in (".git/1", "walk/latest", "walk/0", "walk/007", "walk/-1"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "README.md").write_text("hello")
    assert summary(loaded(tmp_path)) == [("walk", 1, "ready")]


def test_without_a_name_the_first_model_answers_or_the_one_that_is_set(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    write_package(tmp_path, "run")
    assert loaded(tmp_path).get().manifest.name == "run"
    assert loaded(tmp_path, default="walk").get().manifest.name == "walk"


def test_an_unknown_name_is_not_found(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    with pytest.raises(ModelNotFound, match="There is no model 'fly'; served are walk"):
        loaded(tmp_path).get("fly")


def test_a_default_that_does_not_serve_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    with pytest.raises(PackageError, match="the default model 'run' is not among those served"):
        loaded(tmp_path, default="run")


def test_no_package_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="there is no model package in it"):
        loaded(tmp_path)
    with pytest.raises(PackageError, match="there is no such folder"):
        loaded(tmp_path / "nowhere")


def test_no_good_package_is_an_error_that_says_why_in_one_line(tmp_path: Path) -> None:
    damage(write_package(tmp_path, "walk"))
    (write_package(tmp_path, "run") / GRAPH_FILE).unlink()
    with pytest.raises(PackageError) as caught:
        loaded(tmp_path)
    assert "run/1: model.onnx cannot be read; walk/1: model.onnx has SHA-256" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_provider_that_cannot_be_had_is_no_fault_of_the_package(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    store = ModelStore(tmp_path, partial(open_package, config=RuntimeConfig("abacus")))
    with pytest.raises(ProviderUnavailable):
        store.load()

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from service.engines.providers import EngineConfig
from service.engines.session import InferenceFailed
from service.errors import ModelNotFound, ModelRefused, NotReady, PackageError, ProviderUnavailable
from service.models.engine_selection import Opened, open_package
from service.models.loading import ALL_VERSIONS, Model, VersionPolicy
from service.packages.manifest import GRAPH_FILE, MANIFEST_FILE, Manifest
from service.pipeline.batching.batcher import Batcher
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots
from service.pipeline.models.entry import ModelState
from service.pipeline.models.repository import ModelRepository
from service.pipeline.models.served_model import ServedModel, ServedVersion
from tests.support.tiny_models import ONE_STREAM, TWO_STREAMS, TinyModel, write_package

pytestmark = pytest.mark.anyio

on_cpu = partial(open_package, config=EngineConfig("cpu"))


@asynccontextmanager
async def loaded(
    models: Path, default: str | None = None, open_package: Any = on_cpu, **options: Any
) -> AsyncIterator[ModelRepository]:
    """A started repository, which is closed at the end."""
    slots = Slots(1)

    def serve(model: Model) -> ServedModel:
        batcher = Batcher(
            model.session,
            model.opened.concurrent,
            slots,
            ThreadPoolExecutor(slots.total),
            sizes=range(1, 9),
            wait_s=0,
            on_batch=id,
            health=InferenceHealth(3600),
        )
        served = ServedModel(model, batcher, idle_s=3600, limit_s=3600, on_failure=lambda: None)
        served.start()
        return served

    repository = ModelRepository(models, open_package, serve, default=default, **options)
    try:
        await repository.start()
        yield repository
    finally:
        await repository.close()


async def start(models: Path, **options: Any) -> None:
    async with loaded(models, **options):
        pass


def summary(repository: ModelRepository) -> list[tuple[str, int, str]]:
    return [(entry.name, entry.version, entry.state.value) for entry in repository.entries()]


def damage(folder: Path) -> None:
    with (folder / GRAPH_FILE).open("ab") as file:
        file.write(b"\0")


async def test_valid_package_is_served(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        model = repository.registry.get("walk").model
        assert (model.manifest.name, model.session.runtime.provider) == ("walk", "cpu")
        (entry,) = repository.entries()
    assert (entry.state, entry.manifest, entry.provider) == (ModelState.READY, model.manifest, "cpu")
    assert entry.reason is None


async def test_highest_version_is_served(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        write_package(tmp_path, "walk", version)
    async with loaded(tmp_path) as repository:
        assert repository.registry.get("walk").manifest.version == 10
        assert summary(repository) == [
            ("walk", 10, "ready"),
            ("walk", 9, "unloaded"),
            ("walk", 2, "unloaded"),
        ]


async def test_next_version_is_served_if_the_highest_is_invalid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_package(tmp_path, "walk", 1)
    damage(write_package(tmp_path, "walk", 2))
    with caplog.at_level(logging.ERROR):
        async with loaded(tmp_path) as repository:
            assert repository.registry.get("walk").manifest.version == 1
            assert summary(repository) == [("walk", 2, "refused"), ("walk", 1, "ready")]
    assert "model walk/2 is refused: model.onnx has SHA-256" in caplog.text


async def test_invalid_package_is_refused_with_its_reason_and_the_others_served(tmp_path: Path) -> None:
    write_package(tmp_path, "good")
    damage(write_package(tmp_path, "changed"))
    (write_package(tmp_path, "mute") / MANIFEST_FILE).unlink()
    (write_package(tmp_path, "empty") / GRAPH_FILE).unlink()
    shutil.move(write_package(tmp_path, "own-name"), tmp_path / "other-name" / "1")
    write_package(tmp_path, "wide", model=TinyModel(classes=9))
    async with loaded(tmp_path) as repository:
        entries = repository.entries()
    reasons = {entry.name: str(entry.reason) for entry in entries if entry.state is ModelState.REFUSED}
    assert [entry.name for entry in entries if entry.state is ModelState.READY] == ["good"]
    assert reasons.pop("changed").startswith("model.onnx has SHA-256 ")
    assert reasons == {
        "mute": "there is no model.json",
        "empty": "model.onnx cannot be read: No such file or directory",
        "other-name": "the manifest is that of own-name/1",
        "wide": "output logits has shape (N, 9), it must be (N, 3)",
    }


async def test_reason_does_not_contain_a_local_path(tmp_path: Path) -> None:
    write_package(tmp_path, "good")
    (write_package(tmp_path, "torn") / MANIFEST_FILE).write_text("{")
    async with loaded(tmp_path) as repository:
        reasons = [entry.reason for entry in repository.entries() if entry.reason]
    assert reasons == ["model.json cannot be read as JSON: EOF while parsing an object at line 1 column 1"]


@pytest.mark.parametrize("gmacs", [0, -1, True, "23.85", float("inf")])
async def test_impossible_costs_are_refused(tmp_path: Path, gmacs: object) -> None:
    write_package(tmp_path, "tiny", gmacs=gmacs)
    with pytest.raises(PackageError, match=r"model\.json: gmacs is .*: should be "):
        await start(tmp_path)


async def test_other_files_are_ignored(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    for other in (".git/1", "walk/latest", "walk/0", "walk/007", "walk/-1"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "README.md").write_text("hello")
    async with loaded(tmp_path) as repository:
        assert summary(repository) == [("walk", 1, "ready")]


async def test_default_model_is_the_configured_or_the_first_one(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    write_package(tmp_path, "run")
    for default, answers in ((None, "run"), ("walk", "walk")):
        async with loaded(tmp_path, default) as repository:
            assert repository.registry.get().manifest.name == answers


async def test_unknown_name_is_not_found(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        with pytest.raises(ModelNotFound, match="There is no model 'fly'; served are walk"):
            repository.registry.get("fly")


async def test_unavailable_default_model_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    with pytest.raises(PackageError, match="the default model 'run' is not among those served"):
        await start(tmp_path, default="run")


async def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="there is no model package in it"):
        await start(tmp_path)
    with pytest.raises(PackageError, match="there is no such folder"):
        await start(tmp_path / "nowhere")


async def test_folder_without_a_valid_package_is_an_error_of_one_line(tmp_path: Path) -> None:
    damage(write_package(tmp_path, "walk"))
    (write_package(tmp_path, "run") / GRAPH_FILE).unlink()
    with pytest.raises(PackageError) as caught:
        await start(tmp_path)
    assert (
        "run/1: model.onnx cannot be read: No such file or directory; walk/1: model.onnx has SHA-256"
        in caught.value.message
    )
    assert "\n" not in caught.value.message


async def test_unavailable_provider_is_not_blamed_on_the_package(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    with pytest.raises(ProviderUnavailable):
        await start(tmp_path, open_package=partial(open_package, config=EngineConfig("abacus")))


class Gate:
    """Opens packages only after the test opens the gate."""

    def __init__(self) -> None:
        self.opened = Event()
        self.opened.set()
        self.reached = 0

    def __call__(self, folder: Path, manifest: Manifest) -> Opened:
        self.reached += 1
        self.opened.wait()
        return on_cpu(folder, manifest)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def alive(serving: ServedVersion) -> bool:
    """Whether its session can still run."""
    return hasattr(serving.model.session, "_session")


async def test_old_version_serves_until_the_new_one_is_loaded(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    gate = Gate()
    async with loaded(tmp_path, open_package=gate) as repository:
        write_package(tmp_path, "walk", 2)
        gate.opened.clear()
        rescan = asyncio.create_task(repository.rescan())
        await soon(lambda: ("walk", 2, "loading") in summary(repository))
        assert repository.registry.get("walk").manifest.version == 1
        assert summary(repository) == [("walk", 2, "loading"), ("walk", 1, "ready")]
        gate.opened.set()
        await rescan
        assert repository.registry.get("walk").manifest.version == 2
        await soon(lambda: summary(repository) == [("walk", 2, "ready"), ("walk", 1, "unloaded")])


async def test_request_keeps_its_version_until_it_is_answered(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    async with loaded(tmp_path) as repository:
        write_package(tmp_path, "walk", 2, TinyModel(ONE_STREAM))
        with repository.registry.get("walk").held() as held:
            await repository.load("walk")
            assert summary(repository) == [("walk", 2, "ready"), ("walk", 1, "unloading")]
            pixels = {item.name: np.zeros((1, *item.shape(8)), np.uint8) for item in TWO_STREAMS.inputs}
            assert (await held.graph.batcher.infer(pixels)).outputs.logits.shape == (1, 3)
        await soon(lambda: not alive(held))
        await soon(lambda: ("walk", 1, "unloaded") in summary(repository))


async def test_unloaded_model_is_freed_without_garbage_collection(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    async with loaded(tmp_path) as repository:
        batcher = weakref.ref(repository.registry.get("walk").graph.batcher)
        pixels = {item.name: np.zeros((1, *item.shape(8)), np.uint8) for item in TWO_STREAMS.inputs}
        gc.disable()
        try:
            await repository.registry.get("walk").graph.batcher.infer(pixels)
            write_package(tmp_path, "walk", 2)
            await repository.load("walk")
            await soon(lambda: ("walk", 1, "unloaded") in summary(repository))
            assert batcher() is None
        finally:
            gc.enable()


async def test_change_waits_until_the_previous_one_has_freed_its_memory(tmp_path: Path) -> None:
    for version in (1, 2):
        write_package(tmp_path, "walk", version)
    async with loaded(tmp_path) as repository:
        with repository.registry.get("walk").held() as held:
            await repository.load("walk", VersionPolicy(only=frozenset({1})))
            again = asyncio.create_task(repository.load("walk"))
            await asyncio.sleep(0.1)
            assert summary(repository) == [("walk", 2, "unloading"), ("walk", 1, "ready")]
        await again
        assert not alive(held)
        assert repository.registry.get("walk").manifest.version == 2


async def test_slow_request_of_one_model_does_not_delay_the_deployment_of_another(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    write_package(tmp_path, "run", 1)
    async with loaded(tmp_path) as repository:
        with repository.registry.get("walk").held():
            write_package(tmp_path, "walk", 2)
            await repository.load("walk")
            write_package(tmp_path, "run", 2)
            async with asyncio.timeout(20):
                await repository.load("run")
            write_package(tmp_path, "run", 3)
            rescan = asyncio.create_task(repository.rescan())
            await soon(lambda: repository.registry.get("run").manifest.version == 3)
            assert ("walk", 1, "unloading") in summary(repository)
        await rescan


@pytest.fixture
def stuck() -> Iterator[Callable[[Path, Manifest], Opened]]:
    """Opens packages; loads of the model `stuck` end only with the test."""
    end = Event()

    def open_unless_stuck(folder: Path, manifest: Manifest) -> Opened:
        if manifest.name == "stuck":
            assert end.wait(timeout=60)
        return on_cpu(folder, manifest)

    yield open_unless_stuck
    end.set()


async def test_load_that_never_ends_blocks_nothing_else(
    tmp_path: Path, stuck: Callable[[Path, Manifest], Opened]
) -> None:
    write_package(tmp_path, "walk", 1)
    async with asyncio.timeout(30), loaded(tmp_path, open_package=stuck, turn_s=0.2) as repository:
        write_package(tmp_path, "stuck")
        await repository.rescan()
        assert ("stuck", 1, "loading") in summary(repository)
        write_package(tmp_path, "walk", 2)
        await repository.load("walk")
        assert repository.registry.get("walk").manifest.version == 2
        write_package(tmp_path, "walk", 3)
        await repository.rescan()
        assert repository.registry.get("walk").manifest.version == 3
        again = asyncio.create_task(repository.load("stuck"))
        await asyncio.sleep(0.5)
        assert not again.done()
        await repository.unload("stuck")
        with pytest.raises(ModelRefused, match="superseded"):
            await again
        assert ("stuck", 1, "unloaded") in summary(repository)


async def test_a_model_whose_load_was_cancelled_is_closed(tmp_path: Path) -> None:
    for version in (1, 2):
        write_package(tmp_path, "walk", version)
    gate, opened = Gate(), list[Opened]()

    def open_and_remember(folder: Path, manifest: Manifest) -> Opened:
        opened.append(gate(folder, manifest))
        return opened[-1]

    async with loaded(tmp_path, open_package=open_and_remember) as repository:
        shutil.rmtree(tmp_path / "walk" / "1")
        write_package(tmp_path, "walk", 3)
        gate.opened.clear()
        load = asyncio.create_task(repository.load("walk"))
        # A load that is cancelled before would open nothing.
        await soon(lambda: gate.reached == 2)
        assert ("walk", 3, "loading") in summary(repository)
        load.cancel()
        await asyncio.wait([load])
        assert load.cancelled()
        gate.opened.set()
        await soon(lambda: len(opened) == 2 and not hasattr(opened[1].session, "_session"))
        assert repository.registry.get("walk").manifest.version == 2


async def test_versions_loaded_before_a_cancellation_are_retired(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    gate, opened = Gate(), list[Opened]()

    def open_and_remember(folder: Path, manifest: Manifest) -> Opened:
        if manifest.version == 2:
            gate.opened.wait()
        opened.append(on_cpu(folder, manifest))
        return opened[-1]

    async with loaded(tmp_path, open_package=open_and_remember, versions_kept=3) as repository:
        write_package(tmp_path, "walk", 2)
        write_package(tmp_path, "walk", 3)
        gate.opened.clear()
        load = asyncio.create_task(repository.load("walk"))
        await soon(lambda: ("walk", 2, "loading") in summary(repository))
        load.cancel()
        await asyncio.wait([load])
        await soon(lambda: not hasattr(opened[1].session, "_session"))
        gate.opened.set()
        assert summary(repository)[-1] == ("walk", 1, "ready")
        assert repository.registry.get("walk").manifest.version == 1


async def test_failing_model_leaves_the_others_ready(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    write_package(tmp_path, "run")
    async with loaded(tmp_path) as repository:
        registry = repository.registry
        for name in ("walk", "run"):
            assert registry.problem() is None
            with pytest.raises(InferenceFailed), registry.get(name).graph.batcher.health.run():
                raise InferenceFailed("the device is gone")
            assert registry.get(name).problem() == (
                f"Model {name} does not answer: The last inference failed."
            )
        assert str(registry.problem()).endswith("does not answer: The last inference failed.")


async def test_invalid_new_version_leaves_the_old_one_serving(tmp_path: Path) -> None:
    write_package(tmp_path, "walk", 1)
    async with loaded(tmp_path) as repository:
        before = repository.registry.get("walk")
        damage(write_package(tmp_path, "walk", 2))
        with pytest.raises(ModelRefused, match=r"walk/2 is refused: model.onnx has SHA-256 .*; served: 1\."):
            await repository.load("walk")
        await repository.rescan()  # reported only in the log
        assert repository.registry.get("walk") is before
        assert summary(repository) == [("walk", 2, "refused"), ("walk", 1, "ready")]
        shutil.rmtree(tmp_path / "walk")
        damage(write_package(tmp_path, "walk", 3))
        await repository.rescan()  # even if the old version's folder was removed
        assert summary(repository) == [("walk", 3, "refused"), ("walk", 1, "ready")]
        shutil.rmtree(tmp_path / "walk" / "3")
        write_package(tmp_path, "walk", 3)
        await repository.load("walk")
        assert repository.registry.get("walk").manifest.version == 3


async def test_valid_package_changed_in_place_is_loaded_again(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        first = repository.registry.get("walk")
        await repository.load("walk")
        assert repository.registry.get("walk") is first  # nothing has changed
        shutil.rmtree(folder)
        write_package(tmp_path, "walk", model=TinyModel(gain=5.0))
        await repository.load("walk")
        second = repository.registry.get("walk")
        assert second is not first
        (folder / MANIFEST_FILE).unlink()
        with pytest.raises(ModelRefused, match=r"there is no model.json"):
            await repository.load("walk")
        (entry,) = repository.entries()
        assert (entry.state, entry.reason) == (ModelState.READY, "there is no model.json")
        assert repository.registry.get("walk") is second


async def test_rescan_finds_added_and_removed_packages(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        write_package(tmp_path, "run")
        await repository.rescan()
        assert summary(repository) == [("run", 1, "ready"), ("walk", 1, "ready")]
        shutil.rmtree(tmp_path / "walk")
        await repository.rescan()
        await soon(lambda: summary(repository) == [("run", 1, "ready")])
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(PackageError, match="there is no model package in it"):
            await repository.rescan()
        assert summary(repository) == [("run", 1, "ready")]  # an empty folder is an error


async def test_a_model_is_unloaded_until_it_is_loaded_by_name(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        with repository.registry.get("walk").held() as held:
            unload = asyncio.create_task(repository.unload("walk"))
            await soon(lambda: summary(repository) == [("walk", 1, "unloading")])
            assert repository.registry.problem() == "No model serves."
            with pytest.raises(NotReady):
                repository.registry.get("walk")
            assert not unload.done()
        await unload
        assert not alive(held)
        await repository.rescan()
        assert summary(repository) == [("walk", 1, "unloaded")]
        await repository.load("walk")
        assert repository.registry.problem() is None


async def test_versions_are_served_side_by_side_if_configured(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_package(tmp_path, "walk", version)
    async with loaded(tmp_path, versions_kept=2) as repository:
        assert sorted(repository.registry.versions("walk")) == [2, 3]
        assert [repository.registry.get("walk", version).manifest.version for version in (None, 2)] == [3, 2]
        two = repository.registry.get("walk", 2)
        with pytest.raises(ModelNotFound, match=r"Version 1 of walk does not serve; served: 2, 3\."):
            repository.registry.get("walk", 1)
        write_package(tmp_path, "walk", 4)
        shutil.rmtree(tmp_path / "walk/3")
        await repository.rescan()
        assert sorted(repository.registry.versions("walk")) == [2, 4]
        assert repository.registry.get("walk", 2) is two


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(), [3]),
        (VersionPolicy(2), [2, 3]),
        (VersionPolicy(ALL_VERSIONS), [1, 2, 3]),
        (VersionPolicy(ALL_VERSIONS, frozenset({1, 3})), [1, 3]),
        (VersionPolicy(only=frozenset({1})), [1]),
    ],
)
async def test_version_policy_can_be_set_for_one_model(
    tmp_path: Path, policy: VersionPolicy, served: list[int]
) -> None:
    for version in (1, 2, 3):
        write_package(tmp_path, "walk", version)
    async with loaded(tmp_path) as repository:
        await repository.load("walk", policy)
        await repository.rescan()  # which keeps the policy
        assert sorted(repository.registry.versions("walk")) == served


async def test_missing_model_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        with pytest.raises(ModelNotFound, match=r"There is no package of a model 'fly'; there are walk\."):
            await repository.load("fly")
        with pytest.raises(ModelNotFound, match=r"There is no package walk/7\."):
            await repository.load("walk", VersionPolicy(only=frozenset({7})))
        with pytest.raises(ModelNotFound, match=f"There is no model '{'a' * 128}'; served"):
            repository.registry.get("a" * 129)
        with pytest.raises(ModelNotFound, match=r"There is no model '../walk'\."):
            await repository.unload("../walk")
        assert summary(repository) == [("walk", 1, "ready")]


async def test_closing_does_not_wait_for_requests(tmp_path: Path) -> None:
    write_package(tmp_path, "walk")
    async with loaded(tmp_path) as repository:
        with repository.registry.get("walk").held() as held:
            await repository.close()
            assert not alive(held)
            with pytest.raises(NotReady):
                await held.graph.batcher.infer({})

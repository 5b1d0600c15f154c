"""Taught packages: heads that share the graph, the queue and the batches of their base."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import service.models.taught
import service.pipeline.accepted_request
from service.errors import InvalidParameter, ModelNotFound, ModelRefused
from service.observer import Observer
from service.packages.manifest import HEAD_FILE
from service.pipeline.classification import Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.models.served_model import ServedHead
from service.pipeline.recognizer import Recognizer
from service.pipeline.recognizer import running as running_recognizer
from service.pipeline.timeline import TimelineSummary
from tests.service.pipeline.budgets import RecordingBudget
from tests.service.pipeline.requests import classify, timeline
from tests.support.tiny_models import ONE_STREAM, TinyModel, colour_clip, write_head, write_package

pytestmark = pytest.mark.anyio

WITH_FEATURES = TinyModel(features=True)
RED, BLUE, GREY = (220, 20, 20), (20, 20, 220), (100, 50, 50)
RED_CLIP = colour_clip(RED)
BLUE_CLIP = colour_clip(BLUE)
PIXELS = {"little": np.full((1, 4, 32, 32, 3), 60, np.uint8), "big": np.full((1, 4, 16, 16, 3), 60, np.uint8)}


class Recorder(Observer):
    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []
        self.views: list[tuple[str, int]] = []

    def batch_size(self, model: str, rows: int) -> None:
        self.batches.append((model, rows))

    def taught_views(self, model: str, views: int) -> None:
        self.views.append((model, views))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The package of a model that can be a base."""
    return write_package(tmp_path, "colours", model=WITH_FEATURES)


@asynccontextmanager
async def running(
    models: Path, observer: Observer | None = None, **settings: Any
) -> AsyncIterator[Recognizer]:
    config = CoreConfig(models=models, decode_workers=1, inference_threads=1, **settings)
    async with running_recognizer(config, observer, cores=1) as recognizer:
        yield recognizer


def states(recognizer: Recognizer) -> dict[str, str]:
    return {f"{entry.name}/{entry.version}": entry.state.value for entry in recognizer.models.entries()}


def reasons(recognizer: Recognizer) -> dict[str, str]:
    return {entry.name: entry.reason for entry in recognizer.models.entries() if entry.reason}


async def test_head_classifies_the_features_of_its_base(tmp_path: Path, base: Path) -> None:
    weights = np.random.default_rng(1).normal(0, 0.01, (4, 3, 2)).astype(np.float32)
    write_head(tmp_path, base, weights=weights)
    async with running(tmp_path) as recognizer:
        async with recognizer.accept("hues") as request:
            outputs = (await request.infer(PIXELS)).outputs
        assert (await classify(recognizer, RED_CLIP)).manifest.name == "colours"  # a head is no default
    assert outputs.features is not None
    expected = np.stack([4 * weights[moment].T @ outputs.features[0, moment] for moment in range(4)])
    assert np.allclose(outputs.evidence[0], expected, atol=1e-5)
    assert np.allclose(outputs.logits, outputs.evidence.mean(axis=1), atol=1e-6)


async def test_taught_labels_are_returned_and_unsure_ones_marked(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path) as recognizer:
        red = await classify(recognizer, RED_CLIP, Query("hues", evidence=True, clips=2, crops=3))
        grey = await classify(recognizer, colour_clip(GREY), Query("hues"))
        plain = await classify(recognizer, RED_CLIP, Query("colours"))
        *windows, summary = [item async for item in timeline(recognizer, RED_CLIP)]
        with pytest.raises(InvalidParameter, match="the package of hues does not say"):
            await classify(recognizer, RED_CLIP, Query("hues", crops=10))
    assert (red.predictions[0].label, red.unsure, red.manifest.name) == ("red", False, "hues")
    assert red.evidence is not None
    assert len(red.evidence.timestamps_s) == 2 * 4
    assert grey.unsure is True
    assert plain.unsure is None
    assert isinstance(summary, TimelineSummary)
    assert {getattr(window, "unsure", True) for window in windows} == {None}  # by the default model


async def test_scores_and_evidence_are_calibrated_by_the_temperature(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    write_head(tmp_path, base, "cooler", temperature=4.0)
    async with running(tmp_path) as recognizer:
        plain = await classify(recognizer, RED_CLIP, Query("hues", evidence=True))
        cooler = await classify(recognizer, RED_CLIP, Query("cooler", evidence=True))
    assert plain.evidence is not None
    assert cooler.evidence is not None
    odds = [math.log(one.predictions[0].score / one.predictions[1].score) for one in (plain, cooler)]
    assert odds[1] == pytest.approx(odds[0] / 4)
    assert np.array(cooler.evidence.margins) == pytest.approx(np.array(plain.evidence.margins) / 4)
    assert np.mean(cooler.evidence.margins, axis=0)[0] == pytest.approx(odds[1], rel=1e-4)


def recorded_views(recognizer: Recognizer) -> Callable[[], list[float]]:
    """The numbers of views for which memory is reserved from now on."""
    budget, view_bytes = RecordingBudget(), recognizer.model("colours").view_bytes
    recognizer.frames_memory = budget
    return lambda: [size / view_bytes for size in budget.sizes]


async def test_memory_is_reserved_for_all_views_of_a_request(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    query = Query(clips=2, crops=3)
    async with running(tmp_path) as recognizer:
        models = [recognizer.model(name) for name in ("colours", "hues")]
        reserved = recorded_views(recognizer)
        await classify(recognizer, RED_CLIP, query)
        async with recognizer.accept("colours", views=query.views) as request:
            await request.classify_with(models, RED_CLIP, query)
    assert reserved() == [6, 6, 6]


async def test_base_is_found_by_its_name_version_and_checksum_only(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path) as recognizer:
        registry = recognizer.models.registry
        wanted = registry.get("hues").manifest.base
        assert wanted is not None
        names, checksums = ("a", "z"), ("0" * 64, "f" * 64)
        others = [
            *(wanted.model_copy(update={"name": name}) for name in names),
            *(wanted.model_copy(update={"sha256": checksum}) for checksum in checksums),
            wanted.model_copy(update={"version": 2}),
        ]
        found = registry.loaded_base(wanted)
        assert [registry.loaded_base(other) for other in others] == [None] * 5
    assert found is not None
    assert found.key == ("colours", 1)


async def test_features_of_the_views_and_of_their_mirror_images_are_within_the_memory_budget(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.pipeline.accepted_request, "teaching_crops", lambda _: 3)
    async with running(tmp_path) as recognizer:
        reserved = recorded_views(recognizer)
        async with recognizer.accept("colours") as request:
            mirrored = (await request.features(RED_CLIP)).array
            plain = (await request.features(RED_CLIP, mirrored=False)).array
    assert (len(mirrored), len(plain)) == (6, 3)
    assert reserved() == [3 + 6, 3 + 3]


async def test_mirrored_views_swap_the_labels_of_a_head_with_a_mirror(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base, mirror=(1, 0))
    async with running(tmp_path) as recognizer:
        result = await classify(recognizer, RED_CLIP, Query("hues", crops=10))
    assert [round(one.score, 6) for one in result.predictions] == [0.5, 0.5]  # half of the views are swapped


async def test_timeline_marks_unsure_windows(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path, default_model="hues") as recognizer:
        *windows, _ = [item async for item in timeline(recognizer, colour_clip(GREY))]
    assert [getattr(window, "unsure", None) for window in windows] == [True] * len(windows)


async def test_rescan_keeps_a_taught_model_that_has_not_changed(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path) as recognizer:
        before = recognizer.model("hues")
        await recognizer.models.rescan()
        assert recognizer.model("hues") is before
        shutil.rmtree(tmp_path / "hues")
        write_head(tmp_path, base, mirror=(1, 0))
        await recognizer.models.rescan()
        assert recognizer.model("hues") is not before
        assert recognizer.model("hues").manifest.mirror == (1, 0)


async def test_any_number_of_heads_share_the_graph_and_the_batches_of_their_base(
    tmp_path: Path, base: Path
) -> None:
    names = [f"head{number}" for number in range(5)]
    for name in names:
        write_head(tmp_path, base, name)
    seen = Recorder()
    async with running(tmp_path, seen, max_batch=8, batch_wait_ms=0) as recognizer:
        served = [recognizer.model(name) for name in names]
        assert len({model.graph for model in served}) == 1
        assert len({id(model.model.session) for model in (*served, recognizer.model("colours"))}) == 1
        seen.batches.clear()
        await asyncio.gather(
            *(model.infer(PIXELS) for model in served), recognizer.model("colours").infer(PIXELS)
        )
        assert recognizer.queue_depth == 0
    assert seen.batches == [("colours", 6)]
    assert seen.views == [(name, 1) for name in names]


async def test_bundled_base_is_found_and_is_not_served_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "bundled"
    base = write_package(bundled, "colours", 7, model=WITH_FEATURES)
    models = tmp_path / "models"
    for name in ("cool", "hues"):
        write_head(models, base, name)
    monkeypatch.setattr(service.models.taught, "bundled_models", lambda: bundled)
    async with running(models) as recognizer:
        assert (await classify(recognizer, RED_CLIP, Query("hues"))).predictions[0].label == "red"
        assert recognizer.model("hues").graph is recognizer.model("cool").graph
        with pytest.raises(ModelNotFound):
            recognizer.model("colours")
        assert states(recognizer) == {"cool/1": "ready", "hues/1": "ready"}
        (graph,) = recognizer.models.registry.loaded()
        await recognizer.models.unload("cool")
        assert hasattr(graph.model.session, "_session")
        await recognizer.models.unload("hues")
        await recognizer.models.registry.unloaded("colours")
        assert not hasattr(graph.model.session, "_session")


async def test_heads_without_a_base_are_refused_and_the_others_served(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base, "good")
    write_head(tmp_path, base, "gone", base={"name": "away", "version": 1, "sha256": "0" * 64})
    write_head(tmp_path, base, "other", base={"name": "colours", "version": 1, "sha256": "0" * 64})
    write_head(tmp_path, base, "later", base={"name": "colours", "version": 2, "sha256": "0" * 64})
    plain = write_package(tmp_path, "plain")
    write_head(tmp_path, plain, "on-plain")
    write_head(tmp_path, tmp_path / "good" / "1", "on-taught")
    write_head(tmp_path, base, "wide", weights=np.zeros((2, 5, 2), np.float32))
    write_head(tmp_path, base, "thirds", weights=np.zeros((3, 3, 2), np.float32))
    write_head(
        tmp_path, write_package(tmp_path, "single", model=TinyModel(ONE_STREAM, features=True)), "spec"
    )
    write_head(tmp_path, base, "frames", frames=4)
    with (write_head(tmp_path, base, "torn") / HEAD_FILE).open("ab") as file:
        file.write(b"\0")
    async with running(tmp_path) as recognizer:
        found = reasons(recognizer)
        assert recognizer.models.registry.names() == {"colours", "good", "plain", "single", "spec"}
    assert found.pop("torn").startswith("head.npz has SHA-256 ")
    assert found.pop("other").startswith("its base colours/1 is another package by now: the SHA-256 of the")
    missing = "is missing; add that package to the models folder, or teach it on another base"
    assert found == {
        "gone": f"its base away/1 {missing}",
        "later": f"its base colours/2 {missing}",
        "on-plain": "its base plain/1 has no output `features`; export it again to get one",
        "on-taught": "its base good/1 is a taught model itself",
        "wide": "its head reads 5 features, its base colours/1 has 3",
        "thirds": "its head has 3 segments, which do not divide the 4 moments of its base",
        "frames": "frames, sampling or inputs are not those of its base colours/1",
    }


async def test_head_with_a_base_that_cannot_be_loaded_names_it(tmp_path: Path) -> None:
    base = write_package(tmp_path, "colours", model=TinyModel(features=True, classes=5))
    write_head(tmp_path, base)
    write_package(tmp_path, "plain")
    async with running(tmp_path) as recognizer:
        found = reasons(recognizer)
    assert found["hues"] == f"its base colours/1 is refused: {found['colours']}"


async def test_a_replaced_base_stays_loaded_for_its_heads(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path) as recognizer:
        old = recognizer.model("hues").graph
        write_package(tmp_path, "colours", 2, model=WITH_FEATURES)
        await recognizer.models.load("colours")
        assert states(recognizer) == {"colours/2": "ready", "colours/1": "unloaded", "hues/1": "ready"}
        assert recognizer.model("hues").graph is old
        assert (await classify(recognizer, RED_CLIP, Query("hues"))).predictions[0].label == "red"
        shutil.rmtree(tmp_path / "colours" / "2")
        await recognizer.models.rescan()  # the old version serves by its name again, and is not loaded twice
        await recognizer.models.registry.unloaded("colours")
        assert recognizer.model("colours") is old
        assert states(recognizer) == {"colours/1": "ready", "hues/1": "ready"}
        await recognizer.models.unload("hues")
        assert (await classify(recognizer, RED_CLIP, Query("colours"))).predictions[0].label == "red"


async def test_a_base_that_is_in_use_is_not_unloaded(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    write_head(tmp_path, base, "cool")
    async with running(tmp_path) as recognizer:
        refusal = "colours is the base of the taught models cool, hues; unload them first."
        with pytest.raises(ModelRefused, match=refusal):
            await recognizer.models.unload("colours")
        assert (await classify(recognizer, RED_CLIP, Query("colours"))).predictions[0].label == "red"
        await recognizer.models.unload("hues")
        await recognizer.models.unload("cool")
        await recognizer.models.unload("colours")
        assert recognizer.models.registry.names() == set()


async def test_head_stays_available_when_its_base_is_changed_in_place(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    async with running(tmp_path) as recognizer:
        shutil.rmtree(base)
        write_package(tmp_path, "colours", model=TinyModel(features=True, gain=5))
        await recognizer.models.rescan()
        assert reasons(recognizer)["hues"].startswith("its base colours/1 is another package by now")
        assert recognizer.model("colours").graph is not recognizer.model("hues").graph
        assert (await classify(recognizer, RED_CLIP, Query("hues"))).predictions[0].label == "red"
        with pytest.raises(ModelRefused, match="hues/1 is refused: its base colours/1 is another"):
            await recognizer.models.load("hues")


async def test_replacing_heads_loses_no_request(tmp_path: Path, base: Path) -> None:
    write_head(tmp_path, base)
    versions: list[int] = []

    async def ask(recognizer: Recognizer, stop: asyncio.Event) -> None:
        while not stop.is_set():
            async with recognizer.accept("hues") as request:
                versions.append((await request.infer(PIXELS)).manifest.version)

    async with running(tmp_path) as recognizer:
        stop = asyncio.Event()
        callers = [asyncio.create_task(ask(recognizer, stop)) for _ in range(4)]
        async with recognizer.accept("hues") as slow:  # a request that holds the first version all along
            for version in range(2, 12):
                write_head(tmp_path, base, version=version)
                await recognizer.models.load("hues")
                assert recognizer.model("hues").manifest.version == version
            assert (await slow.infer(PIXELS)).manifest.version == 1
        stop.set()
        await asyncio.gather(*callers)
        heads = recognizer.model("colours").graph.taught
    assert sorted(set(versions))[-1] == 11
    assert {head.key for head in heads if isinstance(head, ServedHead)} <= {("hues", 11)}

"""What an accepted request reserves: views in the admission, memory for frames, and places in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.pipeline.accepted_request import AcceptedRequest
from service.pipeline.classification import Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognizer import Recognizer, running
from tests.service.pipeline.budgets import RecordingBudget
from tests.support.tiny_models import ONE_STREAM, TinyModel, colour_clip, write_package

pytestmark = pytest.mark.anyio

RED_CLIP = colour_clip((220, 20, 20))


@pytest.fixture
async def recognizer(tmp_path: Path) -> AsyncIterator[Recognizer]:
    write_package(tmp_path, "colours", model=TinyModel(features=True))
    write_package(tmp_path, "same-input", model=TinyModel(features=True))
    write_package(tmp_path, "single", model=TinyModel(ONE_STREAM))
    async with running(CoreConfig(models=tmp_path, decode_workers=1, default_model="colours")) as started:
        yield started


@asynccontextmanager
async def accepted(
    recognizer: Recognizer, views: int = 1
) -> AsyncIterator[tuple[AcceptedRequest, RecordingBudget]]:
    budget = RecordingBudget()
    async with recognizer.accept(None, views=views) as request:
        yield replace(request, frames_memory=budget), budget
    assert recognizer.admission.inflight == 0


async def test_memory_is_reserved_for_the_frames_of_all_views(recognizer: Recognizer) -> None:
    async with accepted(recognizer) as (request, budget):
        view = request.model.view_bytes
        await request.classify(RED_CLIP, Query(clips=3, crops=5))
        assert request.ticket.views == 15
        await request.infer_video(RED_CLIP)
        await request.features(RED_CLIP)
        await request.features(RED_CLIP, mirrored=False)
        assert request.ticket.views == 15
    # One crop, as the tiny model states no multiply-accumulates; its frames are copied for the mirror image.
    assert budget.sizes == [15 * view, view, 3 * view, 2 * view]


async def test_models_with_the_same_inputs_share_a_decode(recognizer: Recognizer) -> None:
    names = ["colours", "same-input", "colours", "single"]
    async with accepted(recognizer) as (request, budget):
        models = [recognizer.model(name) for name in names]
        answers = await request.classify_with(models, RED_CLIP, Query(clips=2))
        assert request.ticket.views == 2
    assert [answer.manifest.name for answer in answers] == names
    assert [answer.predictions[0].label for answer in answers] == ["red"] * 4
    assert budget.sizes == [2 * model.view_bytes for model in models]
    first, same_input, again, single = [answer.timing for answer in answers]
    assert first == again  # one run of the graph for both
    assert first.decode_ms == same_input.decode_ms != single.decode_ms


async def test_tensors_count_as_views_and_need_no_memory_for_frames(recognizer: Recognizer) -> None:
    async with accepted(recognizer) as (request, budget):
        clip = request.model.manifest.clip
        inputs = {item.name: np.zeros((3, *item.shape(clip.frames)), np.uint8) for item in clip.inputs}
        inferred = await request.infer(inputs)
        assert request.ticket.views == 3
    assert inferred.outputs.logits.shape == (3, 3)
    assert (inferred.timing.decode_ms, budget.sizes) == (0.0, [])


@pytest.mark.parametrize("mirrored", [False, True])
async def test_features_are_those_of_the_views(recognizer: Recognizer, mirrored: bool) -> None:
    async with accepted(recognizer) as (request, _):
        features = await request.features(RED_CLIP, mirrored=mirrored)
    assert features.array.shape[0] == 1 + mirrored
    assert features.video.frames == 24
    assert features.timing.decode_ms > 0

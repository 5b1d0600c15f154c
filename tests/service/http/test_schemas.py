"""The schemas: the values of a query, and the form of the core's results."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.clip.video import VideoInfo
from service.http.schemas.classify import ClassifyAnswer, ClassifyParameters
from service.http.schemas.common import TimingMs, server_timing
from service.http.schemas.models import ModelInfo
from service.models.engine_selection import ChosenBy
from service.packages.manifest import Manifest, clip_fields
from service.pipeline.classification import Classification, Evidence, Prediction, Sampled, Timings
from service.pipeline.models.entry import ModelEntry, ModelState
from tests.support.engines import OPENVINO, opened
from tests.support.tiny_models import TWO_STREAMS

MANIFEST = Manifest(
    name="tiny",
    version=3,
    architecture="colour-meter",
    **clip_fields(TWO_STREAMS),
    labels=("red", "green"),
    precision="fp32",
    sha256="0" * 64,
)
RECOGNITION = Classification(
    manifest=MANIFEST,
    provider="cpu",
    predictions=(Prediction("red", 0, 0.75), Prediction("green", 1, 0.25)),
    unsure=None,
    video=VideoInfo("mp4", "h264", 96, 64, 90, 40, 25.0, 1.6),
    sampled=Sampled.of((2, 7), (0.08, 0.1 + 0.2)),
    evidence=Evidence((0.19,), ((0.75, 0.25),), ((1.0986, 0.0),), Prediction("green", 1, 0.25)),
    timing=Timings(decode_ms=3.00049, queue_ms=1.0, inference_ms=2.0),
)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"top_k": "1"},
        {"top_k": "100"},
        {"clips": "10"},
        {"crops": "10"},
        {"evidence": "true"},
        {"frames": "true"},
        {"model": "a"},
    ],
)
def test_valid_query_is_accepted(query: dict[str, str]) -> None:
    parsed = ClassifyParameters.model_validate(query).model_dump(exclude_unset=True)
    assert {name: str(value).lower() for name, value in parsed.items()} == query


@pytest.mark.parametrize(
    "query",
    [
        {"top_k": "0"},
        {"top_k": "101"},
        {"top_k": "1.5"},
        {"clips": "0"},
        {"clips": "11"},
        {"crops": "2"},
        {"evidence": "maybe"},
        {"frames": "all"},
        {"model": ""},
        {"topk": "3"},
    ],
)
def test_invalid_query_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ClassifyParameters.model_validate(query)


def test_answer_contains_the_pipelines_result() -> None:
    shown = ClassifyAnswer.of(RECOGNITION, receive_ms=0.5, total_ms=6.5, request_id="seven").model_dump(
        mode="json"
    )
    assert shown == {
        "model": {"name": "tiny", "version": 3},
        "sha256": MANIFEST.sha256,
        "provider": "cpu",
        "cached": False,
        "predictions": [
            {"label": "red", "index": 0, "score": 0.75},
            {"label": "green", "index": 1, "score": 0.25},
        ],
        "video": {
            "container": "mp4", "codec": "h264", "width": 96, "height": 64, "rotation": 90, "frames": 40,
            "fps": 25.0, "duration_s": 1.6, "broken_packets": 0, "timestamps": "exact", "track": 0,
        },
        "sampled": {"frames": [2, 7], "timestamps_s": [0.08, 0.3]},
        "evidence": {
            "timestamps_s": [0.19], "scores": [[0.75, 0.25]], "margins": [[1.0986, 0.0]],
            "runner_up": {"label": "green", "index": 1, "score": 0.25},
        },
        "frames": None,
        "timing_ms": {"receive": 0.5, "decode": 3.0, "queue": 1.0, "inference": 2.0, "total": 6.5},
        "request_id": "seven",
    }  # fmt: skip


def test_server_timing_has_the_stages_and_their_total() -> None:
    timing = TimingMs(receive=1.0, decode=2.0, queue=3.0, inference=4.5, total=11.0)
    expected = "receive;dur=1.0, decode;dur=2.0, queue;dur=3.0, inference;dur=4.5, total;dur=11.0"
    assert server_timing(timing.model_dump()) == expected
    assert "total" not in timing.stages()


def test_entry_of_a_served_model() -> None:
    running = opened(OPENVINO, ChosenBy.MEASURED, cpu_f32=3.5)
    entry = ModelInfo.of(ModelEntry("tiny", 3, ModelState.READY, MANIFEST, running))
    assert (entry.state, entry.provider, entry.precision, entry.labels) == (
        "ready",
        "openvino",
        "fp32",
        ["red", "green"],
    )
    assert entry.runtime is not None
    assert entry.runtime.model_dump() == {
        "engine": "openvino",
        "version": "2026.4.1",
        "arithmetic": "bf16",
        "threads": 2,
        "streams": 1,
        "chosen": "measured",
        "batches": [],
        "measured_ms": {"cpu_f32": 3.5},
    }
    assert [item.name for item in entry.inputs] == ["little", "big"]


def test_entry_of_a_refused_model() -> None:
    entry = ModelInfo.of(ModelEntry("tiny", 3, ModelState.REFUSED, reason="no graph"))
    assert (entry.state, entry.reason, entry.provider, entry.labels) == ("refused", "no graph", None, [])

"""Metrics on a registry of their own: buckets, and what is read at the scrape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.manifest import Manifest
from service.metrics import Metrics, batch_buckets, latency_buckets
from service.observer import RestartReason
from service.pipeline.model_repository import ModelEntry, ModelState
from tests.engines import OPENVINO, opened
from tests.tiny_models import TWO_STREAMS

MANIFEST = Manifest("tiny", 3, "colour-meter", TWO_STREAMS, ("red",), "int8", "0" * 64)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), request_timeout_s=30, max_batch=8)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("timeout_s", [0.0005, 0.5, 30.0, 33.0, 3600.0])
def test_latency_buckets_reach_from_a_millisecond_past_the_timeout(timeout_s: float) -> None:
    buckets = latency_buckets(timeout_s)
    assert list(buckets) == sorted(set(buckets))
    assert buckets[0] <= 0.001
    assert timeout_s in buckets
    assert buckets[-1] > timeout_s


@pytest.mark.parametrize(
    ("max_batch", "expected"),
    [(1, (1,)), (3, (1, 2, 3)), (8, (1, 2, 3, 4, 8)), (20, (1, 2, 3, 4, 8, 16, 20))],
)
def test_batch_buckets_end_at_the_largest_batch(max_batch: int, expected: tuple[int, ...]) -> None:
    assert batch_buckets(max_batch) == expected


def test_core_reports_batches_and_restarts(metrics: Metrics) -> None:
    metrics.batch_size("tiny", 3)
    metrics.worker_restart(RestartReason.TIMEOUT)
    assert sample(metrics, "blvnet_batch_size_sum", model="tiny") == 3
    assert sample(metrics, "blvnet_decode_worker_restarts_total", reason="timeout") == 1


def test_failures_of_inference_are_counted_from_a_zero_on(metrics: Metrics) -> None:
    metrics.model_watched("tiny")
    assert sample(metrics, "blvnet_self_test_failures_total", model="tiny") == 0
    metrics.self_test_failure("tiny")
    assert sample(metrics, "blvnet_self_test_failures_total", model="tiny") == 1


def test_stages_are_counted_in_seconds(metrics: Metrics) -> None:
    metrics.stages("tiny", {"decode": 1500.0})
    assert sample(metrics, "blvnet_stage_seconds_sum", stage="decode", model="tiny") == 1.5


def test_reasons_are_there_before_the_first_of_their_kind(metrics: Metrics) -> None:
    metrics.declare_reasons(["overloaded"])
    assert sample(metrics, "blvnet_rejected_total", reason="overloaded") == 0


def test_gauges_follow_the_core_at_every_scrape(metrics: Metrics) -> None:
    core: Any = SimpleNamespace(queue_depth=0, decode_workers=2, decode_sandbox=("seccomp",), models=list)
    metrics.watch(core)
    core.queue_depth = 5
    assert sample(metrics, "blvnet_queue_depth") == 5
    assert sample(metrics, "blvnet_decode_workers") == 2
    assert sample(metrics, "blvnet_decode_sandbox", fence="seccomp") == 1
    assert sample(metrics, "blvnet_decode_sandbox", fence="landlock") == 0


def test_models_that_serve_and_those_that_were_refused_are_shown_while_they_are_there(
    metrics: Metrics,
) -> None:
    serving = [
        ModelEntry("tiny", 3, ModelState.READY, MANIFEST, opened(OPENVINO)),
        ModelEntry("bad", 1, ModelState.REFUSED, reason="no graph"),
    ]
    core: Any = SimpleNamespace(queue_depth=0, decode_workers=0, decode_sandbox=(), models=lambda: serving)
    metrics.watch(core)
    labels = {
        "model": "tiny",
        "version": "3",
        "precision": "int8",
        "provider": "openvino",
        "engine": "openvino 2026.4.1",
        "arithmetic": "bf16",
    }
    assert sample(metrics, "blvnet_model_info", **labels) == 1
    assert sample(metrics, "blvnet_model_refused", model="bad", version="1") == 1
    assert sample(metrics, "blvnet_model_refused", model="tiny", version="3") is None
    serving.clear()
    assert sample(metrics, "blvnet_model_info", **labels) is None
    assert sample(metrics, "blvnet_model_refused", model="bad", version="1") is None

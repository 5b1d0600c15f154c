"""Metrics on a separate registry: buckets, and values that are read at the scrape."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from service.monitoring.metrics import LATENCY_BUCKETS_S, Metrics, batch_buckets, latency_buckets
from service.observer import RestartReason
from service.packages.manifest import Manifest, clip_fields
from service.pipeline.models.entry import ModelEntry, ModelState
from tests.support.engines import OPENVINO, opened
from tests.support.tiny_models import TWO_STREAMS

MANIFEST = Manifest(
    name="tiny",
    version=3,
    architecture="colour-meter",
    **clip_fields(TWO_STREAMS),
    labels=("red",),
    precision="int8",
    sha256="0" * 64,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), request_timeout_s=30, max_batch=8)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("timeout_s", [0.0005, 0.5, 30.0, 33.0, 3600.0])
def test_latency_buckets_reach_from_a_millisecond_past_the_timeout(timeout_s: float) -> None:
    buckets = latency_buckets(LATENCY_BUCKETS_S, timeout_s)
    assert list(buckets) == sorted(set(buckets))
    assert buckets[0] <= 0.001
    assert timeout_s in buckets
    assert buckets[-1] > timeout_s


@pytest.mark.parametrize("median_s", [0.013, 0.06, 0.25, 0.9, 1.1, 4.2, 11.9, 24.0])
def test_median_of_answers_is_within_a_tenth_although_most_requests_are_refused(
    metrics: Metrics, median_s: float
) -> None:
    answered = metrics.request_seconds.labels("/v1/classify", "answered")
    for number in range(99 * 101):
        metrics.request_seconds.labels("/v1/classify", "refused").observe(0.0005 + number * 1e-9)
    for number in range(101):  # from 0.8 to 1.2 times the median
        answered.observe(median_s * (0.8 + 0.4 * number / 100))
    buckets = {
        float(found.labels["le"]): found.value
        for family in metrics.registry.collect()
        for found in family.samples
        if found.name == "blvnet_request_seconds_bucket" and found.labels["outcome"] == "answered"
    }
    assert histogram_quantile(0.5, buckets) == pytest.approx(median_s, rel=0.1)


def histogram_quantile(quantile: float, buckets: dict[float, float]) -> float:
    """The function of PromQL, for cumulative counts by upper bound."""
    rank = quantile * max(buckets.values())
    lower, below = 0.0, 0.0
    for upper, count in sorted(buckets.items()):
        if count >= rank:
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    raise AssertionError("no bucket holds the quantile")


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


def test_failures_of_inference_start_at_zero(metrics: Metrics) -> None:
    metrics.model_watched("tiny")
    assert sample(metrics, "blvnet_self_test_failures_total", model="tiny") == 0
    metrics.self_test_failure("tiny")
    assert sample(metrics, "blvnet_self_test_failures_total", model="tiny") == 1


def test_stages_are_counted_in_seconds(metrics: Metrics) -> None:
    metrics.stages("tiny", {"decode": 1500.0})
    assert sample(metrics, "blvnet_stage_seconds_sum", stage="decode", model="tiny") == 1.5


def test_reasons_are_exposed_before_the_first_event(metrics: Metrics) -> None:
    metrics.declare_reasons(["overloaded"])
    assert sample(metrics, "blvnet_rejected_total", reason="overloaded") == 0


def test_gauges_follow_the_core_at_every_scrape(metrics: Metrics) -> None:
    core: Any = SimpleNamespace(
        queue_depth=0,
        decoding=SimpleNamespace(workers=2, sandbox=("seccomp",)),
        models=SimpleNamespace(entries=list),
    )
    metrics.watch(core)
    core.queue_depth = 5
    metrics.refresh()
    assert sample(metrics, "blvnet_queue_depth") == 5
    assert sample(metrics, "blvnet_decode_workers") == 2
    assert sample(metrics, "blvnet_decode_sandbox", fence="seccomp") == 1
    assert sample(metrics, "blvnet_decode_sandbox", fence="landlock") == 0


def test_served_and_refused_models_are_exposed_while_they_exist(
    metrics: Metrics,
) -> None:
    serving = [
        ModelEntry("tiny", 3, ModelState.READY, MANIFEST, opened(OPENVINO)),
        ModelEntry("bad", 1, ModelState.REFUSED, reason="no graph"),
    ]
    core: Any = SimpleNamespace(
        queue_depth=0,
        decoding=SimpleNamespace(workers=0, sandbox=()),
        models=SimpleNamespace(entries=lambda: serving),
    )
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
    metrics.refresh()
    assert sample(metrics, "blvnet_model_info", **labels) is None
    assert sample(metrics, "blvnet_model_refused", model="bad", version="1") is None


def test_exposition_is_rendered_outside_the_event_loop(metrics: Metrics) -> None:
    threads: list[int] = []

    class Recording(Collector):
        def collect(self) -> Iterator[Metric]:
            threads.append(threading.get_ident())
            return iter(())

    metrics.registry.register(Recording())
    threads.clear()
    content, content_type = asyncio.run(metrics.render(""))
    assert b"blvnet_requests_total" in content
    assert content_type.startswith("text/plain")
    assert threads
    assert threading.get_ident() not in threads

"""Prometheus metrics of the service. docs/operations.md explains them.

Label values come from closed sets: routes, problem codes, stages, and the packages of the models folder.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.errors import JobsUnavailable
from service.jobs.runner import JobRunner
from service.observer import Observer, RestartReason, TrainingEnd
from service.pipeline.models.entry import ModelEntry
from service.pipeline.recognizer import Recognizer

# From 10 ms to 30 s each bound is about 1.2 times the previous one: a quantile, which Prometheus
# interpolates, is within a tenth of the true value.
LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.005, 0.01, 0.012, 0.015, 0.018, 0.022, 0.027, 0.033, 0.039, 0.047, 0.056, 0.068, 0.082,
    0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.39, 0.47, 0.56, 0.68, 0.82,
    1.0, 1.2, 1.5, 1.8, 2.0, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2,
    10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
# Stages have series for each model, and their quantiles are only compared with each other.
STAGE_BUCKETS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
TRAINING_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0)
UPLOAD_BUCKETS_BYTES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9, 1e10)
SANDBOXES = ("landlock", "seccomp")


class RequestOutcome(StrEnum):
    """Label of request durations. Refusals are fast and would hide slow answers without a separate label."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"

    @classmethod
    def of_status(cls, status: int) -> Self:
        """Refused: 4xx and 503. Failed: 500, 504, and 499 for a client that left before the answer."""
        if status < 400:
            return cls(cls.ANSWERED)
        return cls(cls.FAILED if status in (499, 500, 504) else cls.REFUSED)


@dataclass
class DurationTotal:
    """Number of events and their total duration."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one event."""
        self.count += 1
        self.seconds += seconds


@dataclass
class ModelUsage:
    """Totals of one model since the start; `last_success` is in seconds since 1970, 0 for none."""

    success: DurationTotal = field(default_factory=DurationTotal)
    failure: DurationTotal = field(default_factory=DurationTotal)
    stages: dict[str, DurationTotal] = field(default_factory=lambda: defaultdict(DurationTotal))
    batches: int = 0
    rows: int = 0
    last_success: float = 0.0


class Metrics(Observer):
    """The metrics of one application; also observes the pipeline."""

    def __init__(self, registry: CollectorRegistry, *, request_timeout_s: float, max_batch: int) -> None:
        self.registry = registry
        self._usage: defaultdict[str, ModelUsage] = defaultdict(ModelUsage)
        self._rendering = asyncio.Lock()
        self._recognizer: Recognizer | None = None
        self._job_runner: JobRunner | None = None
        self._build_info = Gauge(
            "blvnet_build_info", "Version of the service.", ["version", "revision"], registry=registry
        )
        self._start_time = Gauge(
            "blvnet_start_time_seconds", "Start of the service, in seconds since 1970.", registry=registry
        )
        self._start_time.set(time.time())
        self.requests = Counter(
            "blvnet_requests_total", "Answered HTTP requests.", ["route", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "blvnet_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["route", "outcome"],
            buckets=latency_buckets(LATENCY_BUCKETS_S, request_timeout_s),
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "blvnet_stage_seconds",
            "Time that a classified clip spent in one stage.",
            ["stage", "model"],
            buckets=latency_buckets(STAGE_BUCKETS_S, request_timeout_s),
            registry=registry,
        )
        self.rejected = Counter(
            "blvnet_rejected_total", "Requests answered with a problem.", ["reason"], registry=registry
        )
        self.predictions = Counter(
            "blvnet_predictions_total", "Clips by best label.", ["model", "label"], registry=registry
        )
        self._batch_size = Histogram(
            "blvnet_batch_size",
            "Views (clips x crops of the requests) in one inference.",
            ["model"],
            buckets=batch_buckets(max_batch),
            registry=registry,
        )
        self.inflight_requests = Gauge(
            "blvnet_inflight_requests", "HTTP requests in progress.", registry=registry
        )
        self._taught_examples = Gauge(
            "blvnet_taught_examples", "Examples of taught models.", ["model"], registry=registry
        )
        self._trainings = Counter(
            "blvnet_trainings_total", "Trainings of taught models.", ["result"], registry=registry
        )
        for result in TrainingEnd:
            self._trainings.labels(result.value)
        self._training_seconds = Histogram(
            "blvnet_training_seconds",
            "Duration of trainings of taught models that succeeded.",
            buckets=TRAINING_BUCKETS_S,
            registry=registry,
        )
        self._worker_restarts = Counter(
            "blvnet_decode_worker_restarts_total", "Replaced decode workers.", ["reason"], registry=registry
        )
        self._self_test_failures = Counter(
            "blvnet_self_test_failures_total",
            "Failed inferences, and seconds in which one was stuck.",
            ["model"],
            registry=registry,
        )
        self.upload_bytes = Histogram(
            "blvnet_upload_bytes",
            "Size of received uploads.",
            buckets=UPLOAD_BUCKETS_BYTES,
            registry=registry,
        )
        self.cache_requests = Counter(
            "blvnet_cache_requests_total",
            "Classifications looked up in the cache of answers.",
            ["result"],
            registry=registry,
        )
        self.cache_bytes = Gauge("blvnet_cache_bytes", "Size of the cached answers.", registry=registry)
        self._jobs = Gauge("blvnet_jobs", "Stored jobs.", ["state"], registry=registry)
        self.jobs_ended = Counter(
            "blvnet_jobs_ended_total",
            "Jobs that ended in this process.",
            ["kind", "state"],
            registry=registry,
        )
        self._queue_depth = Gauge(
            "blvnet_queue_depth", "Clips that wait for decoding or inference.", registry=registry
        )
        self._decode_workers = Gauge("blvnet_decode_workers", "Running decode workers.", registry=registry)
        self._decode_sandbox = Gauge(
            "blvnet_decode_sandbox",
            "Whether a kernel sandbox confines the decode workers.",
            ["fence"],
            registry=registry,
        )
        self._models = _ModelCollector()
        registry.register(self._models)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

    def declare_build(self, version: str, revision: str) -> None:
        """Report the version of the service and the revision of its source."""
        self._build_info.labels(version, revision).set(1)

    def declare_reasons(self, codes: Iterable[str]) -> None:
        """Create a series with value 0 for every problem code, so that rates and alerts can start."""
        for code in codes:
            self.rejected.labels(code)

    def watch(self, recognizer: Recognizer, jobs: JobRunner | None = None) -> None:
        """Include the state of the pipeline, and the number of jobs."""
        self._recognizer = recognizer
        self._job_runner = jobs
        self.refresh()

    def refresh(self) -> None:
        """Copy the state of the pipeline into the metrics; call it on the event loop before they are read."""
        if self._recognizer is None:
            return
        self._queue_depth.set(self._recognizer.queue_depth)
        self._decode_workers.set(self._recognizer.decoding.workers)
        for sandbox in SANDBOXES:
            self._decode_sandbox.labels(sandbox).set(sandbox in self._recognizer.decoding.sandbox)
        self._models.update(self._recognizer.models.entries())

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition in the format that an `Accept` header requests, and its content type.

        With many labels this takes long, so it runs in a thread, only one at a time for all clients.
        """
        encode, content_type = choose_encoder(accept)
        async with self._rendering:
            self.refresh()
            await self.count_jobs()
            return await asyncio.to_thread(encode, self.registry), content_type

    async def count_jobs(self) -> None:
        """Copy the number of jobs into the metrics; they have none while the job store cannot be reached."""
        if self._job_runner is None:
            return
        try:
            counts = await self._job_runner.store.counts()
        except JobsUnavailable:
            self._jobs.clear()
            return
        for state, count in counts.items():
            self._jobs.labels(state.value).set(count)

    def classified(self, model: str, label: str, stages_ms: Mapping[str, float] | None) -> None:
        """Count a classified clip or window by its best label, and its stages if it took any."""
        if stages_ms is not None:
            self.stages(model, stages_ms)
        self.predictions.labels(model, label).inc()

    def stages(self, model: str, stages_ms: Mapping[str, float]) -> None:
        """Count the stages of one classified clip."""
        usage = self._usage[model]
        for stage, value_ms in stages_ms.items():
            self.stage_seconds.labels(stage, model).observe(value_ms / 1000)
            usage.stages[stage].add(value_ms / 1000)
        # A timeline counts its upload separately, and then each window.
        if "inference" in stages_ms:
            usage.success.add(sum(stages_ms.values()) / 1000)
            usage.last_success = time.time()

    def model_failure(self, model: str, seconds: float) -> None:
        """Count a request for a model that was answered with an error."""
        self._usage[model].failure.add(seconds)

    def model_usage(self, model: str) -> ModelUsage:
        """The totals of a model."""
        return self._usage[model]

    def batch_size(self, model: str, rows: int) -> None:
        """Count a batch of `rows` views."""
        self._batch_size.labels(model).observe(rows)
        self._usage[model].batches += 1
        self._usage[model].rows += rows

    def taught_views(self, model: str, views: int) -> None:
        """Count a request of a taught model, whose batches are counted as those of its base."""
        self._usage[model].batches += 1
        self._usage[model].rows += views

    def taught_examples(self, model: str, examples: int | None) -> None:
        """Set the number of examples of a taught model."""
        if examples is not None:
            self._taught_examples.labels(model).set(examples)
        else:
            with suppress(KeyError):
                self._taught_examples.remove(model)

    def training(self, result: TrainingEnd, seconds: float) -> None:
        """Count a training."""
        self._trainings.labels(result.value).inc()
        if result is TrainingEnd.TRAINED:
            self._training_seconds.observe(seconds)

    def worker_restart(self, reason: RestartReason) -> None:
        """Count a replaced decode worker."""
        self._worker_restarts.labels(reason.value).inc()

    def model_watched(self, model: str) -> None:
        """Create the series of a model's self-test, with value 0."""
        self._self_test_failures.labels(model)

    def self_test_failure(self, model: str) -> None:
        """Count a failed inference, or one second of a stuck inference."""
        self._self_test_failures.labels(model).inc()


class _ModelCollector(Collector):
    """Series of the models, rebuilt for each scrape so that series of replaced models disappear."""

    def __init__(self) -> None:
        self._serving: list[list[str]] = []
        self._refused: list[list[str]] = []

    def update(self, entries: Iterable[ModelEntry]) -> None:
        """Store only the labels, because entries would keep unloaded models in memory."""
        self._serving, self._refused = [], []
        for entry in entries:
            version = str(entry.version)
            if entry.manifest is not None and entry.opened is not None:
                runtime = entry.opened.session.runtime
                engine = f"{runtime.engine} {runtime.version}"
                labels = [entry.manifest.precision, runtime.provider, engine, runtime.arithmetic.value]
                self._serving.append([entry.name, version, *labels])
            if entry.reason is not None:
                self._refused.append([entry.name, version])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        serving = GaugeMetricFamily(
            "blvnet_model_info",
            "Models that serve, and the engines that run them.",
            labels=["model", "version", "precision", "provider", "engine", "arithmetic"],
        )
        refused = GaugeMetricFamily(
            "blvnet_model_refused",
            "Refused model packages; the log and /v1/models give the reasons.",
            labels=["model", "version"],
        )
        for family, rows in ((serving, self._serving), (refused, self._refused)):
            for labels in rows:
                family.add_metric(labels, 1)
            yield family


def latency_buckets(edges_s: Iterable[float], request_timeout_s: float) -> tuple[float, ...]:
    """Return the bounds in `edges_s` (seconds) below the request timeout, the timeout, and twice the timeout.

    A request that times out takes slightly longer than the timeout, so there is a bucket above it: otherwise
    such a request would look like one that never ends.
    """
    below = [edge for edge in edges_s if edge < request_timeout_s]
    return (*below, request_timeout_s, request_timeout_s * 2)


def batch_buckets(max_batch: int) -> tuple[float, ...]:
    """Return the bucket bounds: every size up to 4, then powers of two, then the largest batch."""
    edges = {size for size in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512) if size < max_batch}
    return tuple(float(edge) for edge in sorted(edges | {max_batch}))

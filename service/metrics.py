"""Every metric of the service, on a registry that is passed in. docs/operations.md says what to watch.

Labels come from closed sets only: routes, problem codes, stages, and the packages in the folder of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

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
from prometheus_client.registry import Collector

from service.observer import Observer, RestartReason
from service.pipeline.recognizer import Recognizer

# Dense where answers lie on a CPU and on an accelerator, from 1 ms on.
LATENCY_EDGES_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip

FENCES = ("landlock", "seccomp")
UPLOAD_EDGES_BYTES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9, 1e10)


class Metrics(Observer):
    """The metric objects of one application; also what the core reports to while it works."""

    def __init__(self, registry: CollectorRegistry, *, request_timeout_s: float, max_batch: int) -> None:
        self.registry = registry
        latency = latency_buckets(request_timeout_s)
        self.requests = Counter(
            "blvnet_requests_total", "HTTP requests answered.", ["route", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "blvnet_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ["route"],
            buckets=latency,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "blvnet_stage_seconds",
            "Time that a classified clip spent in one stage.",
            ["stage", "model"],
            buckets=latency,
            registry=registry,
        )
        self.rejected = Counter(
            "blvnet_rejected_total", "Requests answered with a problem.", ["reason"], registry=registry
        )
        self.predictions = Counter(
            "blvnet_predictions_total", "Clips by their best label.", ["model", "label"], registry=registry
        )
        self._batch_size = Histogram(
            "blvnet_batch_size",
            "Views (clips x crops of each request) that shared one inference.",
            ["model"],
            buckets=batch_buckets(max_batch),
            registry=registry,
        )
        self.inflight_requests = Gauge(
            "blvnet_inflight_requests", "HTTP requests being answered at this moment.", registry=registry
        )
        self._worker_restarts = Counter(
            "blvnet_decode_worker_restarts_total",
            "Decode workers that had to be replaced.",
            ["reason"],
            registry=registry,
        )
        self._self_test_failures = Counter(
            "blvnet_self_test_failures_total",
            "Inferences that failed, and seconds in which one was stuck.",
            ["model"],
            registry=registry,
        )
        self.upload_bytes = Histogram(
            "blvnet_upload_bytes", "Size of received clips.", buckets=UPLOAD_EDGES_BYTES, registry=registry
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

    def declare_reasons(self, codes: Iterable[str]) -> None:
        """Show every problem code from the start, so that rates and alerts have a zero to begin with."""
        for code in codes:
            self.rejected.labels(code)

    def watch(self, recognizer: Recognizer) -> None:
        """Add what is read from the core at every scrape."""
        queue_depth = Gauge("blvnet_queue_depth", "Clips that wait for inference.", registry=self.registry)
        queue_depth.set_function(lambda: recognizer.queue_depth)
        workers = Gauge("blvnet_decode_workers", "Decode workers that are alive.", registry=self.registry)
        workers.set_function(lambda: recognizer.decode_workers)
        sandbox = Gauge(
            "blvnet_decode_sandbox",
            "Whether a fence of the kernel stands around the decode workers.",
            ["fence"],
            registry=self.registry,
        )
        for fence in FENCES:
            sandbox.labels(fence).set_function(partial(_stands, recognizer, fence))
        self.registry.register(_ModelCollector(recognizer))

    def stages(self, model: str, stages_ms: Mapping[str, float]) -> None:
        """Count the stages of one classified clip."""
        for stage, value_ms in stages_ms.items():
            self.stage_seconds.labels(stage, model).observe(value_ms / 1000)

    def batch_size(self, model: str, rows: int) -> None:
        """An inference of `rows` views runs."""
        self._batch_size.labels(model).observe(rows)

    def worker_restart(self, reason: RestartReason) -> None:
        """A decode worker is replaced."""
        self._worker_restarts.labels(reason.value).inc()

    def model_watched(self, model: str) -> None:
        """A model serves: its series has a zero to begin with."""
        self._self_test_failures.labels(model)

    def self_test_failure(self, model: str) -> None:
        """An inference has failed, or is stuck."""
        self._self_test_failures.labels(model).inc()


def _stands(recognizer: Recognizer, fence: str) -> float:
    return float(fence in recognizer.decode_sandbox)


class _ModelCollector(Collector):
    """Asked at every scrape, so that a model that was swapped or refused never leaves its series behind."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "blvnet_model_info",
            "The models that serve, and what they run on.",
            labels=["model", "version", "precision", "provider", "engine", "arithmetic"],
        )
        refused = GaugeMetricFamily(
            "blvnet_model_refused",
            "Model packages that cannot be served; the log and /v1/models say why.",
            labels=["model", "version"],
        )
        for entry in self._recognizer.models():
            if entry.manifest is not None and entry.opened is not None:
                runtime = entry.opened.session.runtime
                engine = f"{runtime.engine} {runtime.version}"
                labels = [runtime.provider, engine, runtime.arithmetic.value]
                family.add_metric([entry.name, str(entry.version), entry.manifest.precision, *labels], 1)
            if entry.reason is not None:
                refused.add_metric([entry.name, str(entry.version)], 1)
        yield family
        yield refused


def latency_buckets(request_timeout_s: float) -> tuple[float, ...]:
    """Edges in seconds from 1 ms up to the first one beyond the request timeout, the timeout among them.

    A request that runs into its timeout takes a little longer than that, and has to be told from one that
    never ends.
    """
    below = [edge for edge in LATENCY_EDGES_S if edge < request_timeout_s]
    return (*below, request_timeout_s, request_timeout_s * 2)


def batch_buckets(max_batch: int) -> tuple[float, ...]:
    """Edges at every size up to 4, then doubling, the largest batch last."""
    edges = {size for size in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512) if size < max_batch}
    return tuple(float(edge) for edge in sorted(edges | {max_batch}))

"""The service as a Ray Serve application, for clusters of several machines.

    serve run service.ray_app:app                              settings from BLVNET_* variables
    serve run service.ray_app:build models=DIR num_replicas=2  settings as arguments

A replica is the whole application in one process. Ray places it, sends it requests, checks its health and
stops it, so the signals, sockets and addresses of `service.server` do not apply.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Mapping, MutableMapping
from typing import Any

import ray
from prometheus_client import disable_created_metrics
from ray import serve
from ray.exceptions import RayError
from ray.serve.metrics import Gauge
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engines.providers import Provider
from service.errors import NotReady
from service.http.app import create_app
from service.http.context import REQUEST_ID_HEADER
from service.http.service import Service
from service.machine.resources import usable_cores
from service.monitoring import logs
from service.monitoring.metrics import Metrics
from service.pipeline.limits.admission import SHORTEST_RETRY_S, UPLOADS_PER_PLACE
from service.pipeline.recognizer import RecognizerState
from service.settings import BadSetting, Settings, load_settings, unknown_variables

NAME = "blvnet"
# Settings that Ray replaces: its proxy listens, its agents export metrics, and a change to the models has to
# reach every replica.
REPLACED_BY_RAY = {
    "host": "http_options.host of the Serve config",
    "port": "http_options.port of the Serve config",
    "metrics_port": "Ray's metrics, which include those of every replica",
    "teach_dir": "a service outside Ray that teaches; copy its packages to the models folder",
    "admin_key": "user_config of the deployment, which reaches every replica",
}
GPU_PROVIDERS = (Provider.CUDA, Provider.TENSORRT)
# Ray's own limits are well above the service's, because the service's refusals say when to retry.
REQUESTS_PER_UPLOAD = 2
# For workers and models to stop after the last request.
STOP_S = 10.0
# How often Ray checks whether the last request has finished.
DRAIN_POLL_S = 0.5
METRICS_PREFIX = "blvnet_"  # Ray exports metrics of processes and nodes itself
# Ray's agent drops series that were not reported since its last collection, every 10 s by default.
REPORT_S = 4.0

logger = logging.getLogger(__name__)


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """Build the application for `serve run service.ray_app:build NAME=VALUE ...` or `args` of a Serve config.

    Args:
        arguments: any setting by its lower-case name, which overrides its variable; `num_replicas`; and
            `num_cpus` and `num_gpus` of each replica. Other options of a deployment belong in its config.

    Raises:
        BadSetting: an argument is unknown or has an invalid value.
    """
    options = dict(arguments)
    # Left out unless given, so that a Serve config can autoscale.
    replicas: dict[str, int | str] = {}
    if "num_replicas" in options:
        replicas["num_replicas"] = _count("num_replicas", options.pop("num_replicas"))
    cpus = _amount("num_cpus", options.pop("num_cpus", 1))
    gpus = options.pop("num_gpus", None)
    settings = _settings(options)
    if gpus is None:
        gpus = 1 if settings.provider in GPU_PROVIDERS else 0
    requests = REQUESTS_PER_UPLOAD * UPLOADS_PER_PLACE * settings.queue_limit
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": cpus, "num_gpus": _amount("num_gpus", gpus)},
        max_ongoing_requests=requests,
        max_queued_requests=requests,
        backpressure_config={"status_code": 503, "retry_after_s": SHORTEST_RETRY_S},
        graceful_shutdown_timeout_s=settings.shutdown_grace_s + STOP_S,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        **replicas,
    )
    return deployment.bind(settings.model_dump(exclude_unset=True))


def __getattr__(name: str) -> serve.Application:
    """Build `app` on first access: replicas import this module too, but get their settings from Ray."""
    if name == "app":
        return build({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Replica:
    """One replica: the application, and the methods that Ray calls.

    Args:
        given: the settings given to `build`; all others come from the environment of the replica's node.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._settings = _settings(given)
        self._service: Service | None = None
        self._report: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Ray runs its lifespan."""
        logs.configure(self._settings.log_format, self._settings.log_level)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        for name in unknown_variables(os.environ):
            logger.warning("unknown setting %s ignored", name)
        assigned = ray.get_runtime_context().get_assigned_resources()
        hide_gpus(assigned, os.environ)
        app = create_app(self._settings, own_cores(assigned))
        self._service = app.state.service
        # Runs until Ray ends the process.
        self._report = asyncio.create_task(_report_metrics(self._service.metrics), name="report metrics")
        return _ProxiedApp(app)

    async def check_health(self) -> None:
        """Return if requests can be answered. The first call waits for the models: Ray routes none before.

        A full queue is not a failure: the replica refuses requests, and replacing it would not help.

        Raises:
            BlvnetError: requests cannot be answered; Ray replaces the replica after three failures.
        """
        assert self._service is not None
        await self._service.started()
        if (problem := self._service.recognizer.problem()) is not None:
            raise NotReady(problem)

    async def reconfigure(self, user_config: object) -> None:  # noqa: ARG002 - only the change matters
        """Rescan the models folder when `user_config` has changed, like SIGHUP."""
        assert self._service is not None
        if self._service.recognizer.state not in (
            RecognizerState.NEW,
            RecognizerState.STARTING,
        ):  # Ray also calls it with the first configuration
            self._service.rescan()


def own_cores(assigned: Mapping[str, float]) -> int:
    """Return the number of CPU cores for a replica, from the resources that Ray assigned; at least 1.

    Ray only counts cores, so each replica has to limit itself.
    """
    return max(1, min(math.ceil(assigned.get("CPU", 0)), usable_cores()))


def hide_gpus(assigned: Mapping[str, float], environment: MutableMapping[str, str]) -> None:
    """Hide all GPUs from CUDA if Ray assigned none, because Ray then leaves all of them visible."""
    if not assigned.get("GPU"):
        environment["CUDA_VISIBLE_DEVICES"] = ""


def _settings(options: Mapping[str, Any]) -> Settings:
    """Load the settings.

    Raises:
        BadSetting: a setting is invalid, or is one that Ray replaces.
    """
    settings = load_settings(options)
    for name, replacement in REPLACED_BY_RAY.items():
        if name in settings.model_fields_set:
            raise BadSetting(f"BLVNET_{name.upper()} ({name}) has no effect in Ray Serve: use {replacement}")
    return settings


def _amount(name: str, value: Any) -> float:
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise BadSetting(f"{name} is {value!r}: must be a number of 0 or more")
    return amount


def _count(name: str, value: Any) -> int | str:
    if value == "auto":
        return "auto"
    amount = _amount(name, value)
    if amount < 1 or amount != int(amount):
        raise BadSetting(f"{name} is {value!r}: must be a whole number of 1 or more, or auto")
    return int(amount)


async def _report_metrics(metrics: Metrics) -> None:
    """Report all samples to Ray every few seconds; its agents export them to Prometheus.

    A scrape of `/metrics` through Ray's proxy would reach a different replica each time. Every sample,
    including each bucket of a histogram, becomes a gauge under its own name with the prefix `ray_`; `rate`
    and `histogram_quantile` work on these gauges.
    """
    gauges: dict[str, Gauge] = {}
    while True:
        metrics.refresh()
        await metrics.count_jobs()
        samples = (sample for family in metrics.registry.collect() for sample in family.samples)
        for sample in samples:
            if sample.name.startswith(METRICS_PREFIX):
                if sample.name not in gauges:
                    # All samples of one name have the same labels.
                    tags = tuple(sample.labels)
                    gauges[sample.name] = Gauge(sample.name, sample.name, tag_keys=tags)
                gauges[sample.name].set(sample.value, tags=dict(sample.labels))
        await asyncio.sleep(REPORT_S)


class _ProxiedApp:
    """Adapts the application to Ray's proxy, which holds the connection to the client.

    The proxy sets the request id header itself: the client's id, or one that it generates and the service
    adopts. An error while receiving means that the client has disconnected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_from_proxy() -> Message:
            try:
                return await receive()
            except RayError:
                return {"type": "http.disconnect"}

        async def send_to_proxy(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        await self._app(scope, receive_from_proxy, send_to_proxy)

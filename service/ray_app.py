"""The service as a Ray Serve application, for clusters of several machines.

    serve run service.ray_app:app                              settings from BLVNET_* variables
    serve run service.ray_app:build models=DIR num_replicas=2  or given here

A replica is the whole application in a process of its own. Ray places it, sends it requests, asks for its
health and ends it, so the signals, sockets and addresses of `service.server` have no part here.

    build ──settings that were given──> replica: load, warm up ──> health asked every 10 s ──> ended
                                                                         no request any more, ──┘
                                                                         those under way finish
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
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.errors import NotReady
from service.http.app import create_app
from service.http.context import REQUEST_ID_HEADER
from service.http.lifecycle import RETRY_UPLOADS_S, UPLOADS_PER_PLACE, Lifecycle, State
from service.pipeline.cores import usable_cores
from service.ray_metrics import report_forever
from service.settings import BadSetting, Provider, Settings, load_settings, unknown_variables

NAME = "blvnet"
# What Ray has in place of them: its proxy listens, metrics leave by its agents, and a change of the models
# has to reach every replica.
RAYS_OWN = {
    "host": "http_options.host of the Serve config",
    "port": "http_options.port of the Serve config",
    "metrics_port": "Ray's metrics, which have those of every replica",
    "admin_key": "user_config of the deployment, which reaches every replica",
}
GPU_PROVIDERS = (Provider.CUDA, Provider.TENSORRT)
# A refusal takes a place for a moment too: the service turns away what is too much, and tells when to come
# back; Ray's own limits are a net behind that.
REQUESTS_PER_UPLOAD = 2
# For workers and models to end, when the last request is answered.
END_S = 10.0
# How often Ray looks whether the last request is answered.
LOOK_S = 0.5

logger = logging.getLogger(__name__)


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The application, for `serve run service.ray_app:build NAME=VALUE ...` and `args` of a Serve config.

    Args:
        arguments: any setting by its name in lower case, which wins over its variable; and `num_replicas`,
            `num_cpus` and `num_gpus` of each. All else that Ray knows of a deployment is set in its config.

    Raises:
        BadSetting: an argument is unknown, or has a value that it cannot take.
    """
    options = dict(arguments)
    # Not said where it was not given, so that a config may scale by itself.
    replicas: dict[str, int | str] = {}
    if "num_replicas" in options:
        replicas["num_replicas"] = _count("num_replicas", options.pop("num_replicas"))
    cpus = _amount("num_cpus", options.pop("num_cpus", 1))
    asked_gpus = options.pop("num_gpus", None)
    settings = _settings(options)
    if asked_gpus is None:
        asked_gpus = 1 if settings.provider in GPU_PROVIDERS else 0
    requests = REQUESTS_PER_UPLOAD * UPLOADS_PER_PLACE * settings.queue_limit
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": cpus, "num_gpus": _amount("num_gpus", asked_gpus)},
        max_ongoing_requests=requests,
        max_queued_requests=requests,
        backpressure_config={"status_code": 503, "retry_after_s": RETRY_UPLOADS_S},
        graceful_shutdown_timeout_s=settings.shutdown_grace_s + END_S,
        graceful_shutdown_wait_loop_s=LOOK_S,
        **replicas,
    )
    return deployment.bind(settings.model_dump(exclude_unset=True))


def __getattr__(name: str) -> serve.Application:
    """`app`, built when it is asked for: replicas import this module too, and are told their settings."""
    if name == "app":
        return build({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Replica:
    """One replica: the application, and what Ray asks of it.

    Args:
        given: the settings that were given to `build`; the others are those of the replica's own node.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._settings = _settings(given)
        self._service: Lifecycle | None = None
        self._reports: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application; Ray runs its lifespan next."""
        logs.configure(self._settings.log_format, self._settings.log_level)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        for name in unknown_variables(os.environ):
            logger.warning("%s is set but is no setting", name)
        assigned = ray.get_runtime_context().get_assigned_resources()
        hide_gpus(assigned, os.environ)
        app = create_app(self._settings, own_cores(assigned))
        self._service = app.state.service
        registry = self._service.metrics.registry
        # Until Ray ends the process.
        self._reports = asyncio.create_task(report_forever(registry), name="report metrics")
        return _BehindProxy(app)

    async def check_health(self) -> None:
        """Pass while requests can be answered. The first time waits for the models: Ray sends none before.

        Load alone is no illness: a replica that has its queue full refuses, and is not replaced for it.

        Raises:
            BlvnetError: they cannot be; Ray replaces the replica when it says so three times.
        """
        assert self._service is not None
        await self._service.started()
        works, reason = self._service.health()
        if not works:
            raise NotReady(reason)

    async def reconfigure(self, user_config: object) -> None:  # noqa: ARG002 - that it differs says enough
        """Look through the folder of models again, as on SIGHUP, when `user_config` has changed."""
        assert self._service is not None
        if self._service.state is not State.STARTING:  # which asks for the first configuration
            self._service.rescan()


def own_cores(assigned: Mapping[str, float]) -> int:
    """Cores for the threads and processes of a replica, by what Ray counts as its own; at least 1.

    Ray counts cores and holds nobody to them, so that each replica has to keep to its number itself.
    """
    return max(1, min(math.ceil(assigned.get("CPU", 0)), usable_cores()))


def hide_gpus(assigned: Mapping[str, float], environment: MutableMapping[str, str]) -> None:
    """Have CUDA see no GPU where Ray counts none as the replica's own, as Ray then leaves all to be seen."""
    if not assigned.get("GPU"):
        environment["CUDA_VISIBLE_DEVICES"] = ""


def _settings(options: Mapping[str, Any]) -> Settings:
    """The settings, none of which Ray has something else for.

    Raises:
        BadSetting: as `load_settings`, and for those.
    """
    settings = load_settings(options)
    for name, instead in RAYS_OWN.items():
        if name in settings.model_fields_set:
            raise BadSetting(f"BLVNET_{name.upper()} ({name}) has no meaning in Ray Serve: use {instead}")
    return settings


def _amount(name: str, value: Any) -> float:
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise BadSetting(f"{name} is {value!r}: a number of 0 or more is wanted")
    return amount


def _count(name: str, value: Any) -> int | str:
    if value == "auto":
        return "auto"
    amount = _amount(name, value)
    if amount < 1 or amount != int(amount):
        raise BadSetting(f"{name} is {value!r}: a whole number of 1 or more is wanted, or auto")
    return int(amount)


class _BehindProxy:
    """What differs for the application behind Ray's proxy, which has the connection to the caller.

    The request id is left out of the headers, as the proxy writes it: the caller's, or one that it has made,
    which the service takes over. And where the proxy has no more of a request to hand on, the caller is gone.
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

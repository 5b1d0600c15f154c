"""The deployment, and the calls of Ray to a replica, without a Ray cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.engines.session import InferenceFailed
from service.errors import BlvnetError, NotReady, PackageError
from service.http.app import create_app
from service.http.service import Service
from service.settings import load_settings
from tests.support.server import PATIENCE_S

# --- building ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 9000}, "BLVNET_PORT (port) has no effect in Ray Serve: use http_options.port"),
        ({"metrics_port": 0}, "use Ray's metrics"),
        ({"admin_key": "secret"}, "use user_config"),
        ({"queue_limit": "many"}, "BLVNET_QUEUE_LIMIT"),
        ({"modles": "/srv"}, "BLVNET_MODLES"),
        ({"num_replicas": "0"}, "num_replicas is '0'"),
        ({"num_cpus": "all"}, "num_cpus is 'all'"),
        ({"num_gpus": -1}, "num_gpus is -1"),
    ],
)
def test_argument_without_effect_is_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BlvnetError) as caught:
        built(arguments)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "resources"),
    [
        ({}, {"num_cpus": 1, "num_gpus": 0}),
        ({"num_cpus": "2.5"}, {"num_cpus": 2.5, "num_gpus": 0}),
        ({"provider": "cuda"}, {"num_cpus": 1, "num_gpus": 1}),
        ({"provider": "tensorrt", "num_gpus": "0.5"}, {"num_cpus": 1, "num_gpus": 0.5}),
    ],
)
def test_replica_asks_for_its_cores_and_gpus(arguments: dict[str, Any], resources: dict[str, float]) -> None:
    options = built(arguments).ray_actor_options
    assert {name: options[name] for name in resources} == resources


def test_settings_decide_how_many_requests_ray_sends_and_how_long_it_waits_for_the_end() -> None:
    deployment = built({"queue_limit": "10", "shutdown_grace_s": "7"})
    assert deployment.max_ongoing_requests == 80  # more than are accepted: the service refuses, not Ray
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 17


def test_variables_are_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_TOP", "typo")  # no setting: a warning in the replica's log
    monkeypatch.setenv("BLVNET_QUEUE_LIMIT", "20")
    from service import ray_app

    deployment = ray_app.app._bound_deployment
    assert deployment.max_ongoing_requests == 160
    assert deployment.init_args == ({"queue_limit": 20},)


@pytest.mark.parametrize(("assigned", "cores"), [({"CPU": 1.0}, 1), ({}, 1), ({"CPU": 10_000.0}, None)])
def test_replica_takes_the_cores_that_it_was_given(assigned: dict[str, float], cores: int | None) -> None:
    from service.machine.resources import usable_cores
    from service.ray_app import own_cores

    assert own_cores(assigned) == (cores or usable_cores())


@pytest.mark.parametrize(("assigned", "seen"), [({"GPU": 0.5}, "2"), ({"CPU": 1.0}, ""), ({"GPU": 0.0}, "")])
def test_replica_sees_the_gpus_that_it_was_given(assigned: dict[str, float], seen: str) -> None:
    from service.ray_app import hide_gpus

    environment = {"CUDA_VISIBLE_DEVICES": "2"}
    hide_gpus(assigned, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": seen}


def built(arguments: dict[str, Any]) -> Any:
    """The deployment that `build` makes."""
    from service.ray_app import build

    return build(arguments)._bound_deployment


# --- Ray's calls to a replica ---


@pytest.mark.anyio
async def test_replica_is_unhealthy_while_inference_fails(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InferenceFailed("the device is gone")

    async with replica_of(models=tiny_models, self_test_s=0.1) as (replica, service):
        await replica.check_health()
        with monkeypatch.context() as broken:
            broken.setattr(service.recognizer.models.registry.get("tiny").model.session, "run", fail)
            async with asyncio.timeout(PATIENCE_S):
                while service.recognizer.problem() is None:
                    await asyncio.sleep(0.01)
            with pytest.raises(NotReady, match="does not answer"):
                await replica.check_health()


@pytest.mark.anyio
async def test_replica_without_models_does_not_start(tmp_path: Path) -> None:
    async with replica_of(models=tmp_path / "none") as (replica, _):
        with pytest.raises(PackageError, match="no such folder"):
            await replica.check_health()


@pytest.mark.anyio
async def test_request_cancelled_by_the_proxy_counts_as_disconnected() -> None:
    from ray.exceptions import TaskCancelledError

    from service.ray_app import _ProxiedApp

    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())

    async def receive() -> Any:
        raise TaskCancelledError

    async def send(message: Any) -> None:
        raise AssertionError("the client has disconnected")

    await _ProxiedApp(app)({"type": "http"}, receive, send)
    assert received == [{"type": "http.disconnect"}]


@asynccontextmanager
async def replica_of(**settings: Any) -> AsyncIterator[tuple[Any, Service]]:
    """A replica in this process, and its service, started."""
    from service.ray_app import Replica

    given = settings | {"decode_workers": 1}
    replica = Replica(given)
    app = create_app(load_settings(given))
    replica._service = app.state.service
    async with app.router.lifespan_context(app):
        yield replica, app.state.service

"""Run the application as a process: sockets, signals and an orderly shutdown.

SIGTERM, SIGINT   /readyz answers 503 for SHUTDOWN_DELAY_S, while requests are still accepted; after such a
                  delay new connections are refused. Then new requests get 503 and accepted ones finish,
                  within SHUTDOWN_GRACE_S; then sockets close and workers stop. Exit status 0, or 1 if an
                  inference is stuck.
a second signal   ends the delay and the grace period
SIGHUP            reads key files again and rescans the models folder; the service keeps serving
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import disable_created_metrics

from service.checks.fit import misfits
from service.errors import BlvnetError
from service.http import tracing
from service.http.app import create_app, create_operations_app
from service.http.service import Service
from service.http.transfer.protocol import BoundedProtocol
from service.machine.resources import usable_cores
from service.monitoring import logs
from service.pipeline.models.starter import INFERENCE
from service.settings import Settings, unknown_variables

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
# Longer than the idle timeout of common load balancers, so that they never reuse a closed connection.
KEEP_ALIVE_S = 75
# For answers that are still being sent when all requests are finished.
SEND_TIMEOUT_S = 5
# For requests on connections that were opened just before the service stopped listening.
LAST_REQUESTS_S = 1.0
# For inference threads that have no work left.
THREAD_EXIT_S = 1.0

logger = logging.getLogger(__name__)


class CannotListen(BlvnetError):
    """The address is in use, unknown or not local."""


@dataclass(frozen=True)
class StopRequests:
    """Events that the first and the second stop signal set."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    second: asyncio.Event = field(default_factory=asyncio.Event)


def run(settings: Settings) -> None:
    """Serve until a stop signal.

    Raises:
        BlvnetError: the service cannot listen, no model can be loaded, or a setting is wrong.
    """
    logs.configure(settings.log_format, settings.log_level)
    # `_created` series would double the size of the exposition; the switch applies to the whole process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for name in unknown_variables(os.environ):
        logger.warning("unknown setting %s ignored", name)
    with tracing.exporting():
        uvloop.run(_serve(settings))
    _exit_if_inference_is_stuck()


def _exit_if_inference_is_stuck() -> None:
    """End the process if an inference is stuck: it cannot be interrupted, and Python would wait for it."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(INFERENCE)]
    for thread in threads:
        thread.join(THREAD_EXIT_S)
    if stuck := sum(thread.is_alive() for thread in threads):
        logger.critical("exiting with inferences that do not return", extra={"inferences": stuck})
        logging.shutdown()
        os._exit(1)


async def _serve(settings: Settings) -> None:
    app = create_app(settings)
    service = app.state.service
    assert isinstance(service, Service)
    servers = [_server(app, "service", settings.host, settings.port)]
    if settings.metrics_port is not None:
        operations = create_operations_app(service)
        servers.append(_server(operations, "metrics", settings.host, settings.metrics_port))
    serving = [asyncio.create_task(server.run_here()) for server in servers]
    with _signals(service) as stop:
        try:
            await _first_of(service.started(), stop.first.wait())
            for text in misfits(settings, settings.decode_workers or usable_cores()):
                logger.warning(text)
            _freeze_startup_objects()
            await _first_of(stop.first.wait(), *serving)
            if settings.shutdown_delay_s and not any(task.done() for task in serving):
                service.leave()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.second.wait(), settings.shutdown_delay_s)
                # Load balancers try another instance after a refused connection, but pass on a 503. Requests
                # on connections that were opened just before are still answered.
                servers[0].stop_listening()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.second.wait(), LAST_REQUESTS_S)
        finally:
            await service.drain(settings.shutdown_grace_s)
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*serving)


def _freeze_startup_objects() -> None:
    """Exclude the objects that exist after start-up from garbage collection.

    There are about 90,000, mostly from imports, and they live as long as the process. A full collection,
    about once a minute under load, would visit them all and block the event loop for tens of milliseconds.
    Models are freed by reference counting, so this does not keep them alive.
    """
    gc.collect()
    gc.freeze()
    logger.debug("excluded from garbage collection", extra={"objects": gc.get_freeze_count()})


async def _first_of(*waits: Awaitable[Any]) -> None:
    """Wait for the first of `waits` and raise its error, if any; cancel the coroutines among the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if task.done():
            task.result()
        elif task is not wait:
            task.cancel()


class _Server(uvicorn.Server):
    """Uvicorn on a given socket, without its signal handlers, which would end the process by the signal."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop_listening(self) -> None:
        """Refuse new connections; open connections stay."""
        for server in self.servers:
            server.close()

    async def run_here(self) -> None:
        """Serve in the running event loop until `should_exit`."""
        await self.serve(sockets=[self._listener])


def _server(app: FastAPI, name: str, host: str, port: int) -> _Server:
    listener = listen(host, port)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on" if name == "service" else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SEND_TIMEOUT_S,
    )
    address, bound_port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    logger.info("listening", extra={"server": name, "url": f"http://{shown}:{bound_port}"})
    return _Server(config, listener)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        CannotListen: the address is in use, unknown or not local.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise CannotListen(
            f"cannot listen on {host} port {port}: {reason}; choose another --host or --port"
        ) from exc
    # Connections inherit the option. Without it, an answer sent in two writes waits 40 ms for the client's
    # delayed acknowledgement; asyncio sets it only on sockets that it creates.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _signals(service: Service) -> Iterator[StopRequests]:
    """Handle the signals; from the second stop signal on, open requests are cut off."""
    stop = StopRequests()
    loop = asyncio.get_running_loop()

    def on_stop(name: str) -> None:
        logger.info("signal received", extra={"signal": name})
        if stop.first.is_set():
            stop.second.set()
            service.recognizer.cut()
        stop.first.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    try:
        yield stop
    finally:
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)

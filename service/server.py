"""Runs the application as a process: sockets, signals, and an end that loses nothing that was accepted.

SIGTERM or SIGINT ──> no new work (503, /readyz false) ──> accepted requests finish, at most SHUTDOWN_GRACE_S
                  ──> sockets close, workers stop ──> exit 0; or 1, without an inference that does not end
a second signal   ──> the wait ends at once
SIGHUP            ──> the folder of models is looked through again, while all goes on
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
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import disable_created_metrics

from service import logs
from service.errors import BlvnetError
from service.http.app import create_app, create_operations_app
from service.http.lifecycle import Lifecycle
from service.http.protocol import BoundedProtocol
from service.pipeline.recognizer import INFERENCE
from service.settings import Settings, unknown_variables

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
# Longer than the idle time after which common load balancers drop a connection: they never reuse a dead one.
KEEP_ALIVE_S = 75
# For answers that are still on the wire when all work is done.
LAST_BYTES_S = 5
# For threads that have nothing left to do.
LAST_STEPS_S = 1.0

logger = logging.getLogger(__name__)


class CannotListen(BlvnetError):
    """The address is taken, or not ours."""


def run(settings: Settings) -> None:
    """Serve until a signal asks to stop.

    Raises:
        BlvnetError: the address or the models cannot be had.
    """
    logs.configure(settings.log_format, settings.log_level)
    # A `_created` series for every counter would double what is scraped; it is a switch of the whole process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for name in unknown_variables(os.environ):
        logger.warning("%s is set but is no setting", name)
    uvloop.run(_serve(settings))
    _leave_behind_what_is_stuck()


def _leave_behind_what_is_stuck() -> None:
    """End the process if an inference does not end: nothing interrupts an engine, and Python would wait."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(INFERENCE)]
    for thread in threads:
        thread.join(LAST_STEPS_S)
    if stuck := sum(thread.is_alive() for thread in threads):
        logger.critical("the process ends before its inferences", extra={"inferences": stuck})
        logging.shutdown()
        os._exit(1)


async def _serve(settings: Settings) -> None:
    app = create_app(settings)
    service = app.state.service
    assert isinstance(service, Lifecycle)
    servers = [_server(app, "service", settings.host, settings.port)]
    if settings.metrics_port is not None:
        operations = create_operations_app(service)
        servers.append(_server(operations, "metrics", settings.host, settings.metrics_port))
    serving = [asyncio.create_task(server.run_here()) for server in servers]
    with _signals(service) as stopped:
        try:
            await _until_first(service.started(), stopped.wait())
            _settle()
            await _until_first(stopped.wait(), *serving)
        finally:
            await service.drain(settings.shutdown_grace_s)
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*serving)


def _settle() -> None:
    """Keep what is there after the start out of every later garbage collection.

    It is mostly what imports made, 90,000 objects that stay to the end. A full collection, which under load
    comes about once a minute, would look at all of them, and hold up the event loop for tens of milliseconds.
    What models hold is given back without the collector, so none of it is kept for ever.
    """
    gc.collect()
    gc.freeze()
    logger.debug("out of garbage collection", extra={"objects": gc.get_freeze_count()})


async def _until_first(*waits: Awaitable[Any]) -> None:
    """Wait for one of `waits` and raise its error, if it has one; coroutines that come later are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if task.done():
            task.result()
        elif task is not wait:
            task.cancel()


class _Server(uvicorn.Server):
    """Uvicorn on a socket of ours and without its signal handlers, which end the process by the signal."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

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
        timeout_graceful_shutdown=LAST_BYTES_S,
    )
    address, bound_port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    logger.info("listening", extra={"server": name, "url": f"http://{shown}:{bound_port}"})
    return _Server(config, listener)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        CannotListen: the address is taken, unknown, or not to be had.
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
    # Connections inherit it. Without it an answer in two pieces waits 40 ms for the caller's delayed
    # acknowledgement, and asyncio sets it only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _signals(service: Lifecycle) -> Iterator[asyncio.Event]:
    """An event that the first signal to stop sets; from the second one on, what is under way is cut off."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stop(name: str) -> None:
        logger.info("signal received", extra={"signal": name})
        if stopped.is_set():
            service.cut()
        stopped.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, service.rescan)
    try:
        yield stopped
    finally:
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)

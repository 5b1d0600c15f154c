"""The asynchronous client: the methods of `Client` as coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from blvnet_client import exchange, operations
from blvnet_client.errors import BusyError
from blvnet_client.jobs import AsyncJobs
from blvnet_client.operations import Operation
from blvnet_client.results import (
    ClassifyResult,
    ExampleResult,
    ExamplesLeft,
    ModelDescription,
    ModelsResult,
    Readiness,
    TaughtDescription,
    TaughtModels,
    TimelineResult,
    TrainingResult,
    WindowResult,
)
from blvnet_client.retries import RetryPolicy
from blvnet_client.uploads import AsyncSource, Progress, Upload, opened

Result = TypeVar("Result")


class AsyncClient:
    """Connections to one service, for asyncio and trio.

    Videos may also be asynchronous iterables of bytes.

    Every method may raise `LocalError`, `ConnectionFailed`, `TimedOut`, `UnexpectedAnswer` and
    `ProblemError`, which `blvnet_client.errors` describes.

    Args:
        url: base URL such as `https://host/prefix`; `127.0.0.1:8000` means `http://127.0.0.1:8000`.
        api_key: sent as a bearer token.
        timeout_s: limit of each network operation: connecting (at most 10 s), sending a piece, waiting for
            data.
        retries: when failed requests are sent again.
        transport: httpx transport, for tests and special networks.

    Raises:
        LocalError: the address or the key is malformed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout_s: float = exchange.TIMEOUT_S,
        *,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = exchange.normalised(url)
        self.retries = retries or RetryPolicy()
        options = exchange.client_options(self.url, api_key, timeout_s)
        self._http = httpx.AsyncClient(transport=transport, **options)
        self.jobs = AsyncJobs(self._fetch, self._lines)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Later calls raise `LocalError`."""
        await self._http.aclose()

    async def classify(
        self,
        video: AsyncSource,
        *,
        model: str | None = None,
        top_k: int | None = None,
        clips: int | None = None,
        crops: int | None = None,
        evidence: bool | None = None,
        frames: bool | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> ClassifyResult:
        """Label a video; see `Client.classify`."""
        operation = operations.classify(
            request_id, deadline_s,
            model=model, top_k=top_k, clips=clips, crops=crops, evidence=evidence, frames=frames,
        )  # fmt: skip
        return await self._fetch(operation, video, on_progress)

    def timeline(
        self,
        video: AsyncSource,
        *,
        model: str | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        top_k: int | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[WindowResult | TimelineResult]:
        """Label a long video; see `Client.timeline`."""
        operation = operations.timeline(
            request_id, deadline_s, model=model, window_s=window_s, stride_s=stride_s, top_k=top_k
        )
        return self._lines(operation, video, on_progress)

    async def models(self) -> ModelsResult:
        """Return all models of the service, and the limits of requests."""
        return await self._fetch(operations.models())

    async def model(self, name: str) -> ModelDescription:
        """Return one model; raise `NotFoundError` if there is none with this name."""
        return await self._fetch(operations.model(name))

    async def ready(self) -> Readiness:
        """Return whether the service accepts requests, with a single request."""
        try:
            await self._send_once(operations.ready(), None)
        except BusyError as exc:
            return Readiness(ready=False, reason=exc.message)
        return Readiness(ready=True)

    async def teach(
        self,
        name: str,
        examples: Mapping[str, Iterable[AsyncSource]],
        *,
        base: str | None = None,
        mirror: bool | None = None,
    ) -> TrainingResult:
        """Add examples to a taught model and train it; see `Client.teach`."""
        for label, videos in examples.items():
            for video in videos:
                await self.add_example(name, label, video, base=base)
        return await self.train(name, mirror=mirror)

    async def add_example(
        self,
        name: str,
        label: str,
        video: AsyncSource,
        *,
        base: str | None = None,
        group: str | None = None,
        on_progress: Progress | None = None,
    ) -> ExampleResult:
        """Add one example to a taught model; see `Client.add_example`."""
        operation = operations.add_example(name, label=label, base=base, group=group)
        return await self._fetch(operation, video, on_progress)

    async def train(self, name: str, *, mirror: bool | None = None) -> TrainingResult:
        """Train a taught model on its examples; the new version serves when this returns."""
        return await self._fetch(operations.train(name, mirror=mirror))

    async def taught_models(self) -> TaughtModels:
        """Return all taught models."""
        return await self._fetch(operations.taught_models())

    async def taught_model(self, name: str) -> TaughtDescription:
        """Return one taught model with its examples, versions and latest report."""
        return await self._fetch(operations.taught_model(name))

    async def delete_example(self, name: str, example: str) -> ExamplesLeft:
        """Delete an example by its id; trained versions are not affected."""
        return await self._fetch(operations.delete_example(name, example))

    async def delete_taught(self, name: str) -> None:
        """Delete a taught model with all examples and versions."""
        await self._fetch(operations.delete_taught(name))

    async def _fetch(
        self,
        operation: Operation[Result],
        video: AsyncSource | None = None,
        on_progress: Progress | None = None,
    ) -> Result:
        """Send a request, possibly several times, and return the document of the answer."""
        with nullcontext() if video is None else opened(video, on_progress) as upload:
            result: Result = await self.retries.retrying_async(operation, upload)(
                self._send_once, operation, upload
            )
        return result

    async def _lines(
        self,
        operation: Operation[None],
        video: AsyncSource | None = None,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[WindowResult | TimelineResult]:
        """Send a request, possibly several times, and yield the lines of the answer."""
        with nullcontext() if video is None else opened(video, on_progress) as upload:
            response: httpx.Response = await self.retries.retrying_async(operation, upload)(
                self._send, operation, upload
            )
        try:
            with self._errors():
                async for text in exchange.lines_async(response.aiter_bytes()):
                    line = exchange.timeline_line(text, response, self.url)
                    yield line
                    if isinstance(line, TimelineResult):
                        return
        finally:
            await response.aclose()
        raise exchange.cut_short(self.url)

    async def _send_once(self, operation: Operation[Result], upload: Upload | None) -> Result:
        response = await self._send(operation, upload)
        with self._errors():
            await response.aread()
        return exchange.decoded(response, operation.kind, self.url)

    async def _send(self, operation: Operation[Any], upload: Upload | None) -> httpx.Response:
        """Send a request once; the caller has to read the body of a successful answer."""
        request = exchange.build_request(self._http, operation, upload)
        with self._errors():
            response = await self._http.send(request, stream=True)
            if response.is_success:
                return response
            await response.aread()
        raise exchange.error_of(response, self.url)

    def _errors(self) -> AbstractContextManager[None]:
        return exchange.translated_errors(self.url, self._http.timeout)

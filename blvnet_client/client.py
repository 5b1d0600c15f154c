"""The synchronous client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from blvnet_client import exchange, operations
from blvnet_client.errors import BusyError
from blvnet_client.jobs import Jobs
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
from blvnet_client.uploads import Progress, Source, Upload, opened

Result = TypeVar("Result")


class Client:
    """Connections to one service; threads may share a client.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = exchange.normalised(url)
        self.retries = retries or RetryPolicy()
        options = exchange.client_options(self.url, api_key, timeout_s)
        self._http = httpx.Client(transport=transport, **options)
        self.jobs = Jobs(self._fetch, self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Later calls raise `LocalError`."""
        self._http.close()

    def classify(
        self,
        video: Source,
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
        """Label a video. Parameters that are None take the service's default.

        Args:
            video: a path, the bytes, an open binary file or an iterable of bytes.
            model: name of the model.
            top_k: number of labels.
            clips: clips sampled over time.
            crops: crops of each frame.
            evidence: whether to include the scores of each moment.
            frames: whether to include the frames that the network saw, as images.
            deadline_s: time limit for the service, if shorter than its own.
            request_id: id of the request in the service's log.
            on_progress: called with the bytes sent so far and the size, which is None if it is unknown.
        """
        operation = operations.classify(
            request_id, deadline_s,
            model=model, top_k=top_k, clips=clips, crops=crops, evidence=evidence, frames=frames,
        )  # fmt: skip
        return self._fetch(operation, video, on_progress)

    def timeline(
        self,
        video: Source,
        *,
        model: str | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        top_k: int | None = None,
        deadline_s: float | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> Iterator[WindowResult | TimelineResult]:
        """Label a long video: yield each window as soon as it is ready, and the summary last.

        The request is only sent again if no window has arrived yet. An error may follow some windows.

        Args:
            video: a path, the bytes, an open binary file or an iterable of bytes.
            model: name of the model.
            window_s: length of a window in seconds.
            stride_s: seconds between the starts of consecutive windows.
            top_k: number of labels for each window.
            deadline_s: time limit for the service, if shorter than its own.
            request_id: id of the request in the service's log.
            on_progress: called with the bytes sent so far and the size, which is None if it is unknown.
        """
        operation = operations.timeline(
            request_id, deadline_s, model=model, window_s=window_s, stride_s=stride_s, top_k=top_k
        )
        return self._lines(operation, video, on_progress)

    def models(self) -> ModelsResult:
        """Return all models of the service, and the limits of requests."""
        return self._fetch(operations.models())

    def model(self, name: str) -> ModelDescription:
        """Return one model; raise `NotFoundError` if there is none with this name."""
        return self._fetch(operations.model(name))

    def ready(self) -> Readiness:
        """Return whether the service accepts requests, with a single request."""
        try:
            self._send_once(operations.ready(), None)
        except BusyError as exc:
            return Readiness(ready=False, reason=exc.message)
        return Readiness(ready=True)

    def teach(
        self,
        name: str,
        examples: Mapping[str, Iterable[Source]],
        *,
        base: str | None = None,
        mirror: bool | None = None,
    ) -> TrainingResult:
        """Add examples to a taught model and train it; it serves as `name` when this returns.

        Args:
            name: name of the taught model, which is created if it does not exist.
            examples: videos by label.
            base: model whose features are used; None for the service's default model.
            mirror: whether mirrored examples keep their label.
        """
        for label, videos in examples.items():
            for video in videos:
                self.add_example(name, label, video, base=base)
        return self.train(name, mirror=mirror)

    def add_example(
        self,
        name: str,
        label: str,
        video: Source,
        *,
        base: str | None = None,
        group: str | None = None,
        on_progress: Progress | None = None,
    ) -> ExampleResult:
        """Add one example to a taught model; adding the same video twice gives one example.

        Args:
            name: name of the taught model, which is created if it does not exist.
            label: label of the video.
            video: see `classify`.
            base: model whose features are used.
            group: examples of one group, such as a person, are never on both sides of a cross-validation.
            on_progress: see `classify`.
        """
        operation = operations.add_example(name, label=label, base=base, group=group)
        return self._fetch(operation, video, on_progress)

    def train(self, name: str, *, mirror: bool | None = None) -> TrainingResult:
        """Train a taught model on its examples; the new version serves when this returns."""
        return self._fetch(operations.train(name, mirror=mirror))

    def taught_models(self) -> TaughtModels:
        """Return all taught models."""
        return self._fetch(operations.taught_models())

    def taught_model(self, name: str) -> TaughtDescription:
        """Return one taught model with its examples, versions and latest report."""
        return self._fetch(operations.taught_model(name))

    def delete_example(self, name: str, example: str) -> ExamplesLeft:
        """Delete an example by its id; trained versions are not affected."""
        return self._fetch(operations.delete_example(name, example))

    def delete_taught(self, name: str) -> None:
        """Delete a taught model with all examples and versions."""
        self._fetch(operations.delete_taught(name))

    def _fetch(
        self,
        operation: Operation[Result],
        video: Source | None = None,
        on_progress: Progress | None = None,
    ) -> Result:
        """Send a request, possibly several times, and return the document of the answer."""
        with nullcontext() if video is None else opened(video, on_progress) as upload:
            result: Result = self.retries.retrying(operation, upload)(self._send_once, operation, upload)
        return result

    def _lines(
        self,
        operation: Operation[None],
        video: Source | None = None,
        on_progress: Progress | None = None,
    ) -> Iterator[WindowResult | TimelineResult]:
        """Send a request, possibly several times, and yield the lines of the answer."""
        with nullcontext() if video is None else opened(video, on_progress) as upload:
            response: httpx.Response = self.retries.retrying(operation, upload)(self._send, operation, upload)
        try:
            with self._errors():
                for text in exchange.lines(response.iter_bytes()):
                    line = exchange.timeline_line(text, response, self.url)
                    yield line
                    if isinstance(line, TimelineResult):
                        return
        finally:
            response.close()
        raise exchange.cut_short(self.url)

    def _send_once(self, operation: Operation[Result], upload: Upload | None) -> Result:
        response = self._send(operation, upload)
        with self._errors():
            response.read()
        return exchange.decoded(response, operation.kind, self.url)

    def _send(self, operation: Operation[Any], upload: Upload | None) -> httpx.Response:
        """Send a request once; the caller has to read the body of a successful answer."""
        request = exchange.build_request(self._http, operation, upload)
        with self._errors():
            response = self._http.send(request, stream=True)
            if response.is_success:
                return response
            response.read()
        raise exchange.error_of(response, self.url)

    def _errors(self) -> AbstractContextManager[None]:
        return exchange.translated_errors(self.url, self._http.timeout)

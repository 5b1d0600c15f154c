"""A small client of the service: posts a video, and turns a problem document back into the error it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from service.errors import BadRequest, BlvnetError, NotReady, OverLimit, Overloaded, RateLimited, RequestError
from service.http.schemas import ClassifyAnswer, Problem
from service.http.timeline_schemas import LINE, TimelineEnd, TimelineError, TimelineWindow

Document = TypeVar("Document")
ANSWER = TypeAdapter(ClassifyAnswer)
PROBLEM = TypeAdapter(Problem)

TIMEOUT_S = 120.0
CODES = {kind.code: kind for kind in RequestError.__subclasses__()}


class ServerFailed(BlvnetError):
    """The server cannot be reached, or answers what no server of this kind answers."""


class Client:
    """One server.

    Args:
        url: where it is, such as `http://127.0.0.1:8000`.
        api_key: for servers that want one.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def classify(self, clip: Path, **parameters: Any) -> ClassifyAnswer:
        """Ask what is happening in a clip; `parameters` are those of the query, None is not sent.

        Raises:
            RequestError: the problem that the server answers with, as its class; or the file cannot be read.
            ServerFailed: there is no such server, or it is another kind of server.
        """
        with self._talking(clip) as file:
            answer = self._http.post("/v1/classify", **_request(file, parameters))
        if not answer.is_success:
            raise self._refusal(answer)
        return self._parsed(answer.content, ANSWER, answer.status_code)

    def timeline(self, video: Path, **parameters: Any) -> Iterator[TimelineWindow | TimelineEnd]:
        """Ask what happens in a video when: its windows, each as soon as it is known, then the summary.

        Raises:
            RequestError, ServerFailed: as `classify`; after some windows too.
        """
        with (
            self._talking(video) as file,
            self._http.stream("POST", "/v1/timeline", **_request(file, parameters)) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise self._refusal(answer)
            for text in answer.iter_lines():
                line = self._parsed(text, LINE, answer.status_code)
                if isinstance(line, TimelineError):
                    raise self._error(line.error, answer)
                yield line
                if isinstance(line, TimelineEnd):
                    return
        raise ServerFailed(f"{self._url} breaks off before the last window")

    @contextmanager
    def _talking(self, clip: Path) -> Iterator[BinaryIO]:
        """A clip to send; what fails on the way becomes an error of ours."""
        try:
            with clip.open("rb") as file:
                yield file
        except httpx.HTTPError as exc:
            raise ServerFailed(f"{self._url} does not answer: {exc}; is the service running there?") from exc
        except httpx.InvalidURL as exc:
            raise ServerFailed(f"{self._url} is not the address of a server: {exc}") from exc
        except OSError as exc:
            raise BadRequest(f"The clip cannot be opened: {exc.strerror}.") from exc

    def _refusal(self, answer: httpx.Response) -> BlvnetError:
        return self._error(self._parsed(answer.content, PROBLEM, answer.status_code), answer)

    def _parsed(self, text: str | bytes, kind: TypeAdapter[Document], status: int) -> Document:
        try:
            return kind.validate_json(text)
        except ValidationError as exc:
            raise ServerFailed(
                f"{self._url} answers with status {status} and not as this kind of server does"
            ) from exc

    def _error(self, problem: Problem, answer: httpx.Response) -> BlvnetError:
        """The error that a problem document was made of."""
        kind = CODES.get(problem.code)
        if kind is None:
            return ServerFailed(f"{self._url} answers with status {problem.status}: {problem.detail}")
        if issubclass(kind, OverLimit):
            if problem.limit is None or problem.value is None or problem.maximum is None:
                return ServerFailed(f"{self._url} answers that a limit is passed: {problem.detail}")
            return OverLimit(problem.limit, problem.value, problem.maximum)
        if issubclass(kind, RateLimited | Overloaded | NotReady):
            return kind(problem.detail, float(answer.headers.get("Retry-After", 1)))
        return kind(problem.detail)


def _request(file: BinaryIO, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What `httpx` wants to know of a request; parameters that are None are not sent."""
    return {
        "params": {name: value for name, value in parameters.items() if value is not None},
        "content": file,
        "headers": {"Content-Type": "application/octet-stream"},
    }

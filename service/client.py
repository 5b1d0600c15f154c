"""A small client of the service: posts a clip, and turns a problem document back into the error it was."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.errors import BadRequest, BlvnetError, NotReady, OverLimit, Overloaded, RateLimited, RequestError
from service.schemas import ClassifyAnswer, Problem

Document = TypeVar("Document", bound=BaseModel)

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
        given = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Content-Type": "application/octet-stream"}
        try:
            with clip.open("rb") as file:
                answer = self._http.post("/v1/classify", params=given, content=file, headers=headers)
        except httpx.HTTPError as exc:
            raise ServerFailed(f"{self._url} does not answer: {exc}; is the service running there?") from exc
        except httpx.InvalidURL as exc:
            raise ServerFailed(f"{self._url} is not the address of a server: {exc}") from exc
        except OSError as exc:
            raise BadRequest(f"The clip cannot be opened: {exc.strerror}.") from exc
        if not answer.is_success:
            raise _error(answer, self._url)
        return _parsed(answer, ClassifyAnswer, self._url)


def _parsed(answer: httpx.Response, kind: type[Document], url: str) -> Document:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as exc:
        raise ServerFailed(
            f"{url} answers with status {answer.status_code} and not as this kind of server does"
        ) from exc


def _error(answer: httpx.Response, url: str) -> BlvnetError:
    problem = _parsed(answer, Problem, url)
    kind = CODES.get(problem.code)
    if kind is None:
        return ServerFailed(f"{url} answers with status {answer.status_code}: {problem.detail}")
    if issubclass(kind, OverLimit):
        if problem.limit is None or problem.value is None or problem.maximum is None:
            return ServerFailed(f"{url} answers that a limit is passed: {problem.detail}")
        return OverLimit(problem.limit, problem.value, problem.maximum)
    if issubclass(kind, RateLimited | Overloaded | NotReady):
        return kind(problem.detail, float(answer.headers.get("Retry-After", 1)))
    return kind(problem.detail)

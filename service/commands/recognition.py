"""Results of the commands that label videos, in the same form from a server and from this process."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from blvnet_client import AuthenticationError, ClassifyResult, Client, LocalError, ProblemError
from service.commands.inputs.videos import NamedClip, Pipes
from service.errors import RequestError
from service.http.schemas.classify import ClassifyAnswer
from service.offline import classify_files
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig


@dataclass(frozen=True)
class ClipError:
    """The reason why a video has no labels; `code` is a problem code."""

    code: str
    detail: str


Outcome = ClassifyResult | ClipError


def classify_on_server(
    client: Client, clips: Iterable[NamedClip], pipes: Pipes, query: Query
) -> Generator[tuple[NamedClip, Outcome]]:
    """Label videos sequentially with a server.

    Raises:
        BlvnetClientError: the server fails, or rejects the key.
    """
    parameters = asdict(query)
    for clip in clips:
        outcome: Outcome
        try:
            outcome = client.classify(pipes.file_of(clip), **parameters)
        except AuthenticationError:
            raise
        except ProblemError as exc:
            outcome = ClipError(exc.code, exc.message)
        except LocalError as exc:
            outcome = ClipError("bad_request", f"The file cannot be opened: {exc.message}")
        yield clip, outcome


def classify_here(
    config: CoreConfig, clips: Sequence[NamedClip], pipes: Pipes, query: Query
) -> Generator[tuple[NamedClip, Outcome]]:
    """Label videos in this process.

    Raises:
        BlvnetError: no model can be served.
    """
    files: Iterator[Path] = (pipes.file_of(clip) for clip in clips)
    for clip, (_, result) in zip(clips, classify_files(config, files, query), strict=True):
        yield clip, outcome_of(result)


def outcome_of(result: Classification | RequestError) -> Outcome:
    """The result of the pipeline as a client would get it, without a request id."""
    if isinstance(result, RequestError):
        return ClipError(result.code, result.message)
    answer = ClassifyAnswer.of(result).model_dump(mode="json")
    return msgspec.convert(answer, ClassifyResult, strict=False)

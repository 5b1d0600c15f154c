"""What is known of one HTTP request while it is answered: opened by the middleware, filled in on the way."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

REQUEST_ID_HEADER = "X-Request-ID"
# What is taken over from a caller goes into logs and headers, so it is kept short and plain.
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
SCOPE_KEY = "blvnet.record"


@dataclass
class RequestRecord:
    """One request; `started` is a monotonic time in seconds, `stages_ms` the stages that it got through.

    `left` says that the caller had gone, or took no more, before all of an answer that had begun was sent.
    """

    request_id: str
    started: float = field(default_factory=time.monotonic)
    upload_bytes: int | None = None
    model: str | None = None
    problem: str | None = None
    left: bool = False
    stages_ms: dict[str, float] = field(default_factory=dict)

    def elapsed_ms(self) -> float:
        """Milliseconds since the request came in."""
        return (time.monotonic() - self.started) * 1000

    def received(self, size_bytes: int) -> None:
        """The upload is there; everything up to now was the stage `receive`."""
        self.upload_bytes = size_bytes
        self.stages_ms["receive"] = self.elapsed_ms()


def open_record(connection: HTTPConnection) -> RequestRecord:
    """Start the record of a request, with the caller's request id where it is one that can be repeated."""
    given = connection.headers.get(REQUEST_ID_HEADER, "")
    record = RequestRecord(given if REQUEST_ID_PATTERN.fullmatch(given) else uuid.uuid4().hex)
    connection.scope[SCOPE_KEY] = record
    return record


def record_of(connection: HTTPConnection) -> RequestRecord:
    """The record that the middleware opened for this request."""
    record = connection.scope[SCOPE_KEY]
    assert isinstance(record, RequestRecord)
    return record

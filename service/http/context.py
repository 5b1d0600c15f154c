"""The record of one HTTP request: created by the middleware, filled in while the request is answered."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from service.pipeline.limits.admission import Ticket
from service.tracing import record_stages

REQUEST_ID_HEADER = "X-Request-ID"
# A client's request id appears in logs and headers, so it is kept short and plain.
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
SCOPE_KEY = "blvnet.record"


@dataclass
class RequestRecord:
    """The admission of a request, and the facts that logs and metrics report.

    Attributes:
        request_id: The client's `X-Request-ID`, or a new id.
        started: Time of arrival, in seconds of `time.monotonic`.
        ticket: The admission, if the middleware has admitted the request.
        caller: First digits of the SHA-256 digest of the API key.
        upload_bytes: Size of the received video or body.
        model: Name of the model that the request uses.
        problem: Problem code of the answer, if it is an error.
        client_gone: Whether the client disconnected or stopped reading in the middle of the answer.
        stages_ms: Duration of each completed stage in milliseconds.
    """

    request_id: str
    started: float = field(default_factory=time.monotonic)
    ticket: Ticket | None = None
    caller: str | None = None
    upload_bytes: int | None = None
    model: str | None = None
    problem: str | None = None
    client_gone: bool = False
    stages_ms: dict[str, float] = field(default_factory=dict)

    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.monotonic() - self.started) * 1000

    def received(self, size_bytes: int) -> None:
        """Record a complete upload; the time so far is the stage `receive`."""
        self.upload_bytes = size_bytes
        self.stages_ms["receive"] = self.elapsed_ms()
        record_stages(("receive", self.stages_ms["receive"]))


def open_record(connection: HTTPConnection) -> RequestRecord:
    """Create the record of a request; the client's request id is used if it is well-formed."""
    given = connection.headers.get(REQUEST_ID_HEADER, "")
    record = RequestRecord(given if REQUEST_ID_PATTERN.fullmatch(given) else uuid.uuid4().hex)
    connection.scope[SCOPE_KEY] = record
    return record


def record_of(connection: HTTPConnection) -> RequestRecord:
    """The record that the middleware created for this request."""
    record = connection.scope[SCOPE_KEY]
    assert isinstance(record, RequestRecord)
    return record

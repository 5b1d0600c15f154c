"""The errors of the client.

    BlvnetClientError
    ├── LocalError                  a mistake in the call: the file, the address or the key; nothing was sent
    ├── ConnectionFailed            no connection, or the connection was cut
    ├── TimedOut                    no connection, no progress or no answer within the time limit
    ├── UnexpectedAnswer            the answer is not from this service: another server, or a proxy's page
    └── ProblemError                the service refused the request; `code` is its problem code
        ├── InvalidRequestError     bad_request, invalid_parameter, ...
        ├── AuthenticationError     unauthorized, forbidden
        ├── NotFoundError           model_not_found, not_found
        ├── VideoError              not_a_video, undecodable, over_limit, too_large
        ├── ConflictError           label_conflict, name_taken, training, ...
        ├── BusyError               overloaded, not_ready, rate_limited, ...: worth another attempt later
        └── DeadlineError           deadline_exceeded

A problem code that the client does not know raises `ProblemError` itself.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from blvnet_client.results import ProblemDocument


class BlvnetClientError(Exception):
    """Base of all errors of the client; the message is one line."""

    def __init__(self, message: str, *details: object) -> None:
        super().__init__(message, *details)  # the arguments of the subclass, so that it can be pickled
        self.message = message

    def __str__(self) -> str:
        return self.message


class LocalError(BlvnetClientError):
    """The request cannot be sent: the file cannot be read, or the address, the key or a name is malformed."""


class ConnectionFailed(BlvnetClientError):
    """The server cannot be reached, or the connection was cut before the answer was complete."""


class TimedOut(BlvnetClientError):
    """A network operation took longer than the time limit.

    Attributes:
        phase: `connect`, `write`, `read`, `pool` (no free connection) or `job` (`Client.jobs.wait`).
    """

    def __init__(self, message: str, phase: str) -> None:
        super().__init__(message, phase)
        self.phase = phase


class UnexpectedAnswer(BlvnetClientError):
    """The answer is neither a result nor a problem document of this service.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status


class ProblemError(BlvnetClientError):
    """A problem document (RFC 9457) of the service.

    Attributes:
        problem: The document.
        retry_after_s: Seconds to wait before the next attempt; None if the service does not say.
    """

    codes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, problem: ProblemDocument, retry_after_s: float | None = None) -> None:
        Exception.__init__(self, problem, retry_after_s)
        self.message = problem.detail
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """The problem code, such as `not_a_video`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def request_id(self) -> str:
        """The id under which the service logs the request."""
        return self.problem.request_id

    def __str__(self) -> str:
        return f"{self.code}: {self.message} (status {self.status}, request {self.request_id})"


class InvalidRequestError(ProblemError):
    """The request is malformed, or a parameter is out of range."""

    codes = ("bad_request", "invalid_parameter", "method_not_allowed", "too_few_examples")


class AuthenticationError(ProblemError):
    """The key is missing, unknown or not sufficient, or the service does not offer the operation."""

    codes = ("unauthorized", "forbidden", "teaching_off", "jobs_off")


class NotFoundError(ProblemError):
    """There is no such model or route."""

    codes = ("model_not_found", "not_found", "job_not_found", "example_not_found")


class VideoError(ProblemError):
    """The video cannot be classified: its format, its content or its size.

    With `over_limit`, `problem.limit`, `problem.value` and `problem.maximum` describe the limit.
    """

    codes = ("not_a_video", "undecodable", "over_limit", "too_large")


class ConflictError(ProblemError):
    """The request conflicts with the service's state: examples, names of models, a training in progress."""

    codes = (
        "label_conflict",
        "base_changed",
        "name_taken",
        "training",
        "teaching_full",
        "idempotency_mismatch",
        "model_refused",
    )


class BusyError(ProblemError):
    """The service is overloaded or not ready, or a limit of the key is reached; retry later."""

    codes = ("overloaded", "not_ready", "rate_limited", "storage_full", "jobs_unavailable", "training_failed")


class DeadlineError(ProblemError):
    """The service did not answer within its time limit, or the upload was too slow."""

    codes = ("deadline_exceeded",)


KINDS = {code: kind for kind in ProblemError.__subclasses__() for code in kind.codes}


def problem_error(problem: ProblemDocument, retry_after_s: float | None = None) -> ProblemError:
    """Return the error for a problem document."""
    return KINDS.get(problem.code, ProblemError)(problem, retry_after_s)


def parse_problem(content: bytes) -> ProblemDocument | None:
    """Return the problem document in the body of an answer; None if there is none."""
    try:
        return msgspec.json.decode(content, type=ProblemDocument)
    except msgspec.DecodeError:
        return None

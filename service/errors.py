"""Every error that a caller may see, in one tree.

    BlvnetError                     the command line prints it as one line, exit status 1
    ├── RequestError                becomes a problem document (`service.http.problems` maps the codes)
    │   ├── BadRequest              bad_request          the request itself is malformed
    │   ├── Unauthorized            unauthorized         no valid API key, or not the admin key
    │   ├── Forbidden               forbidden            models may be changed by nobody over HTTP
    │   ├── ModelNotFound           model_not_found
    │   ├── ModelRefused            model_refused        a package that was to be loaded cannot serve
    │   ├── TooLarge                too_large            the upload passes a limit
    │   ├── NotAVideo               not_a_video          the bytes are no video container we take
    │   ├── Undecodable             undecodable          a video, but no frame can be had from it
    │   ├── InvalidParameter        invalid_parameter
    │   ├── OverLimit               over_limit           pixels, duration, streams, ...
    │   ├── RateLimited             rate_limited
    │   ├── Overloaded              overloaded           the queue is full
    │   ├── NotReady                not_ready            no model yet, or shutting down
    │   └── DeadlineExceeded        deadline_exceeded
    ├── PackageError                a model package that cannot be trusted or read
    └── ProviderUnavailable         an asked-for execution provider that cannot be had

Messages are written for the caller: no path of the server, no text of a library underneath.
Errors cross process borders as themselves, so every one pickles with its fields.
"""

from __future__ import annotations

from typing import ClassVar


class BlvnetError(Exception):
    """Root of the errors that are reported, not debugged; the message is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(BlvnetError):
    """A request that cannot be answered; `code` is the contract's problem code."""

    code: ClassVar[str]


class BadRequest(RequestError):
    """The request is malformed: no file, a broken multipart body, an empty body."""

    code = "bad_request"


class Unauthorized(RequestError):
    """A key is asked for, and the request does not carry it."""

    code = "unauthorized"


class Forbidden(RequestError):
    """Nobody may do this, as no admin key is set."""

    code = "forbidden"


class ModelNotFound(RequestError):
    """No model of that name (or version) is served."""

    code = "model_not_found"


class ModelRefused(RequestError):
    """A package that was to be loaded cannot serve; the message says which and why."""

    code = "model_refused"


class TooLarge(RequestError):
    """The upload is larger than the service accepts."""

    code = "too_large"


class NotAVideo(RequestError):
    """The bytes are not one of the video containers that the service takes, or hold no video stream."""

    code = "not_a_video"


class Undecodable(RequestError):
    """A video by its container, but no frame of it can be decoded."""

    code = "undecodable"


class InvalidParameter(RequestError):
    """A query parameter is out of range or of the wrong type."""

    code = "invalid_parameter"


class OverLimit(RequestError):
    """The video passes a limit: `limit` is its name, `value` what the video has, `maximum` what is allowed.

    Numbers are in the unit that the limit's name ends in (pixels, `_s`, frames, streams).
    """

    code = "over_limit"

    def __init__(self, limit: str, value: float, maximum: float) -> None:
        super().__init__(f"{limit} is {value:g}, the limit is {maximum:g}")
        self.limit = limit
        self.value = value
        self.maximum = maximum

    def __reduce__(self) -> tuple[type[OverLimit], tuple[str, float, float]]:
        return type(self), (self.limit, self.value, self.maximum)


class RateLimited(RequestError):
    """This API key has used up its share; `retry_after_s` says when to come back."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RateLimited], tuple[str, float]]:
        return type(self), (self.message, self.retry_after_s)


class Overloaded(RequestError):
    """More work is queued than can be done in time; `retry_after_s` says when to come back."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[Overloaded], tuple[str, float]]:
        return type(self), (self.message, self.retry_after_s)


class NotReady(RequestError):
    """No model is loaded yet, or the service is shutting down; `retry_after_s` says when to come back."""

    code = "not_ready"

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[NotReady], tuple[str, float]]:
        return type(self), (self.message, self.retry_after_s)


class DeadlineExceeded(RequestError):
    """The request's time is over."""

    code = "deadline_exceeded"


class PackageError(BlvnetError):
    """A model package that is missing, malformed, or does not match its checksum."""


class ProviderUnavailable(BlvnetError):
    """The asked-for execution provider is not in use, so the service does not start."""

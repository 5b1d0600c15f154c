"""The errors that callers may see.

    BlvnetError                     printed by the command line as one line, exit status 1
    ├── RequestError                answered as a problem document (`service.http.problems` maps the codes)
    │   ├── BadRequest              bad_request          the request is malformed
    │   ├── Unauthorized            unauthorized         no valid API key, or not the admin key
    │   ├── Forbidden               forbidden            no admin key is set
    │   ├── ModelNotFound           model_not_found
    │   ├── ModelRefused            model_refused        a package to load is invalid
    │   ├── TooLarge                too_large            the upload exceeds a limit
    │   ├── NotAVideo               not_a_video          not a supported video container
    │   ├── Undecodable             undecodable          a video, but no frame can be decoded
    │   ├── InvalidParameter        invalid_parameter
    │   ├── OverLimit               over_limit           pixels, duration, tracks, ...
    │   ├── JobsOff                 jobs_off             no place for jobs is set
    │   ├── JobNotFound             job_not_found
    │   ├── JobsUnavailable         jobs_unavailable     the Redis that has the jobs does not answer
    │   ├── IdempotencyMismatch     idempotency_mismatch an Idempotency-Key is used for another job
    │   ├── TeachingOff             teaching_off         no folder for taught models is set
    │   ├── ExampleNotFound         example_not_found
    │   ├── LabelConflict           label_conflict       the clip or the label exists in another form
    │   ├── BaseChanged             base_changed         the examples belong to another base
    │   ├── NameTaken               name_taken           a package of the models folder has this name
    │   ├── TrainingInProgress      training             the model is being trained
    │   ├── TeachingFull            teaching_full        a limit on examples or taught models is reached
    │   ├── TooFewExamples          too_few_examples
    │   ├── TrainingFailed          training_failed      the process of the training ended
    │   ├── RateLimited             rate_limited
    │   ├── Overloaded              overloaded           the queue is full
    │   │   └── DecodersKilled      overloaded           perhaps for lack of memory
    │   ├── StorageFull             storage_full         no disk space for an upload
    │   ├── NotReady                not_ready            no model yet, or shutting down
    │   └── DeadlineExceeded        deadline_exceeded
    ├── PackageError                an invalid model package
    └── ProviderUnavailable         a requested execution provider is not available

Messages are written for callers: they contain no server paths and no library messages. Errors cross process
boundaries, so each one can be pickled with its fields.
"""

from __future__ import annotations

from typing import ClassVar


class BlvnetError(Exception):
    """Base of the errors that are reported to the caller; the message is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(BlvnetError):
    """A request that cannot be answered; `code` is the problem code."""

    code: ClassVar[str]


class RetryAfter(BlvnetError):
    """Base of the errors of requests that may succeed later, in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[str, float]]:
        return type(self), (self.message, self.retry_after_s)


class BadRequest(RequestError):
    """The request is malformed: no file, an invalid form, an empty body."""

    code = "bad_request"


class Unauthorized(RequestError):
    """The request needs a key and has no valid one."""

    code = "unauthorized"


class Forbidden(RequestError):
    """The operation needs an admin key, and none is configured."""

    code = "forbidden"


class ModelNotFound(RequestError):
    """No model with this name, or no such version of it, is being served."""

    code = "model_not_found"


class ModelRefused(RequestError):
    """A package to load is invalid; the message names it and the reason."""

    code = "model_refused"


class TooLarge(RequestError):
    """The upload exceeds a size limit."""

    code = "too_large"


class NotAVideo(RequestError):
    """The file is not a supported video container, or has no video track."""

    code = "not_a_video"


class Undecodable(RequestError):
    """The file is a video container, but none of its frames can be decoded."""

    code = "undecodable"


class InvalidParameter(RequestError):
    """A query parameter has a wrong type or is out of range."""

    code = "invalid_parameter"


class OverLimit(RequestError):
    """The video exceeds a limit: `limit` is its name, `value` the video's value, `maximum` the highest one.

    The limit's name says the unit of the numbers: pixels, seconds (`_s`), frames, tracks.
    """

    code = "over_limit"

    def __init__(self, limit: str, value: float, maximum: float) -> None:
        super().__init__(f"{limit} is {value:g}, the limit is {maximum:g}")
        self.limit = limit
        self.value = value
        self.maximum = maximum

    def __reduce__(self) -> tuple[type[OverLimit], tuple[str, float, float]]:
        return type(self), (self.limit, self.value, self.maximum)


class JobsOff(RequestError):
    """Jobs are disabled: neither a folder nor a Redis for them is set."""

    code = "jobs_off"


class JobsUnavailable(RetryAfter, RequestError):
    """The Redis that stores the jobs does not answer; acknowledged jobs continue when it does."""

    code = "jobs_unavailable"


class JobNotFound(RequestError):
    """No job has this id, or it belongs to another API key, or it has expired."""

    code = "job_not_found"


class IdempotencyMismatch(RequestError):
    """An `Idempotency-Key` was used before for a job with other parameters or another video."""

    code = "idempotency_mismatch"


class TeachingOff(RequestError):
    """Models cannot be taught over HTTP: no folder for them is set."""

    code = "teaching_off"


class ExampleNotFound(RequestError):
    """The taught model has no such example."""

    code = "example_not_found"


class LabelConflict(RequestError):
    """The clip belongs to another label, or the label differs from another one only by case or spaces."""

    code = "label_conflict"


class BaseChanged(RequestError):
    """The examples of a taught model belong to a different base than the one requested or loaded."""

    code = "base_changed"


class NameTaken(RequestError):
    """A model in the models folder already has the name requested for a taught model."""

    code = "name_taken"


class TrainingInProgress(RequestError):
    """The model is being trained."""

    code = "training"


class TeachingFull(RequestError):
    """A limit on the number or the size of examples, or on the number of taught models, is reached."""

    code = "teaching_full"


class TooFewExamples(RequestError):
    """The examples cannot be learned from; the message says what to add."""

    code = "too_few_examples"


class TrainingFailed(RetryAfter, RequestError):
    """The training process ended without a result; the examples are kept."""

    code = "training_failed"


class RateLimited(RetryAfter, RequestError):
    """A limit of the API key is reached."""

    code = "rate_limited"


class Overloaded(RetryAfter, RequestError):
    """The queue is full, or the request could not be answered in time."""

    code = "overloaded"


class DecodersKilled(Overloaded):
    """Two decoders of a video were killed from outside, perhaps because decoding it takes too much memory."""


class StorageFull(RetryAfter, RequestError):
    """The disk that holds uploads or the memory that holds jobs is full."""

    code = "storage_full"


class NotReady(RetryAfter, RequestError):
    """No model is loaded yet, or the service is shutting down."""

    code = "not_ready"

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message, retry_after_s)


class DeadlineExceeded(RequestError):
    """The request timed out."""

    code = "deadline_exceeded"


class PackageError(BlvnetError):
    """A model package is missing or malformed, or does not match its checksum."""


class ProviderUnavailable(BlvnetError):
    """The requested execution provider is not available, so the service does not start."""

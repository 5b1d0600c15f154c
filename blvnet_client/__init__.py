"""Client of blvnet-serve: labels videos over HTTP.

with Client("127.0.0.1:8000") as client:
    print(client.classify("clip.mp4").best.label)
"""

from blvnet_client.async_client import AsyncClient
from blvnet_client.client import Client
from blvnet_client.errors import (
    AuthenticationError,
    BlvnetClientError,
    BusyError,
    ConflictError,
    ConnectionFailed,
    DeadlineError,
    InvalidRequestError,
    LocalError,
    NotFoundError,
    ProblemError,
    TimedOut,
    UnexpectedAnswer,
    VideoError,
)
from blvnet_client.results import (
    ClassifyJob,
    ClassifyResult,
    ModelDescription,
    ModelsResult,
    ProblemDocument,
    Readiness,
    ScoredLabel,
    TimelineJob,
    TimelineResult,
    WindowResult,
)
from blvnet_client.retries import RetryPolicy

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "BlvnetClientError",
    "BusyError",
    "ClassifyJob",
    "ClassifyResult",
    "Client",
    "ConflictError",
    "ConnectionFailed",
    "DeadlineError",
    "InvalidRequestError",
    "LocalError",
    "ModelDescription",
    "ModelsResult",
    "NotFoundError",
    "ProblemDocument",
    "ProblemError",
    "Readiness",
    "RetryPolicy",
    "ScoredLabel",
    "TimedOut",
    "TimelineJob",
    "TimelineResult",
    "UnexpectedAnswer",
    "VideoError",
    "WindowResult",
]

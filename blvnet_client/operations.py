"""The operations of the service: one function for each, which builds the request for both clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from blvnet_client.results import (
    ClassifyJob,
    ClassifyResult,
    ExampleResult,
    ExamplesLeft,
    ModelDescription,
    ModelsResult,
    TaughtDescription,
    TaughtModels,
    TimelineJob,
    TrainingResult,
)

Result = TypeVar("Result")
AnyJob = TypeVar("AnyJob", ClassifyJob, TimelineJob)
# msgspec decodes unions, which `type[...]` cannot describe.
ANY_JOB: Any = ClassifyJob | TimelineJob


@dataclass(frozen=True)
class Operation(Generic[Result]):
    """A request without its body.

    Attributes:
        kind: Type of the document in the answer.
        repeatable: Whether a second request after a cut connection has no further effect.
    """

    method: str
    path: str
    kind: type[Result]
    parameters: Mapping[str, Any]
    headers: Mapping[str, str]
    repeatable: bool = True


def classify(
    request_id: str | None, deadline_s: float | None, **parameters: Any
) -> Operation[ClassifyResult]:
    """`POST /v1/classify`."""
    headers = _headers(request_id, deadline_s)
    return Operation("POST", "/v1/classify", ClassifyResult, _given(parameters), headers)


def timeline(request_id: str | None, deadline_s: float | None, **parameters: Any) -> Operation[None]:
    """`POST /v1/timeline`, whose answer is read line by line."""
    headers = _headers(request_id, deadline_s)
    return Operation("POST", "/v1/timeline", type(None), _given(parameters), headers)


def models() -> Operation[ModelsResult]:
    """`GET /v1/models`."""
    return Operation("GET", "/v1/models", ModelsResult, {}, {})


def model(name: str) -> Operation[ModelDescription]:
    """`GET /v1/models/{name}`."""
    return Operation("GET", f"/v1/models/{_segment(name)}", ModelDescription, {}, {})


def ready() -> Operation[None]:
    """`GET /readyz`."""
    return Operation("GET", "/readyz", type(None), {}, {})


def add_example(name: str, **parameters: Any) -> Operation[ExampleResult]:
    """`POST /v1/taught/{name}/examples`: sending the same video twice gives one example."""
    return Operation("POST", f"{_taught(name)}/examples", ExampleResult, _given(parameters), {})


def train(name: str, **parameters: Any) -> Operation[TrainingResult]:
    """`POST /v1/taught/{name}/train`: each request creates a version."""
    return Operation(
        "POST", f"{_taught(name)}/train", TrainingResult, _given(parameters), {}, repeatable=False
    )


def taught_models() -> Operation[TaughtModels]:
    """`GET /v1/taught`."""
    return Operation("GET", "/v1/taught", TaughtModels, {}, {})


def taught_model(name: str) -> Operation[TaughtDescription]:
    """`GET /v1/taught/{name}`."""
    return Operation("GET", _taught(name), TaughtDescription, {}, {})


def delete_example(name: str, example: str) -> Operation[ExamplesLeft]:
    """`DELETE /v1/taught/{name}/examples/{id}`."""
    path = f"{_taught(name)}/examples/{_segment(example)}"
    return Operation("DELETE", path, ExamplesLeft, {}, {}, repeatable=False)


def delete_taught(name: str) -> Operation[None]:
    """`DELETE /v1/taught/{name}`."""
    return Operation("DELETE", _taught(name), type(None), {}, {}, repeatable=False)


def submit_job(
    kind: type[AnyJob], idempotency_key: str, request_id: str | None, **parameters: Any
) -> Operation[AnyJob]:
    """`POST /v1/jobs`: using the same idempotency key twice gives one job."""
    headers = _headers(request_id, None) | {"Idempotency-Key": idempotency_key}
    asked = {"kind": "classify" if kind is ClassifyJob else "timeline"} | _given(parameters)
    return Operation("POST", "/v1/jobs", kind, asked, headers)


def job(job_id: str) -> Operation[ClassifyJob | TimelineJob]:
    """`GET /v1/jobs/{id}`."""
    return Operation("GET", f"/v1/jobs/{_segment(job_id)}", ANY_JOB, {}, {})


def job_result(job_id: str) -> Operation[None]:
    """`GET /v1/jobs/{id}/result` of a timeline, which is read line by line."""
    return Operation("GET", f"/v1/jobs/{_segment(job_id)}/result", type(None), {}, {})


def delete_job(job_id: str) -> Operation[None]:
    """`DELETE /v1/jobs/{id}`."""
    return Operation("DELETE", f"/v1/jobs/{_segment(job_id)}", type(None), {}, {}, repeatable=False)


def _taught(name: str) -> str:
    return f"/v1/taught/{_segment(name)}"


def _segment(text: str) -> str:
    """A name as one segment of a path; `exchange.build_request` refuses those that cannot be one."""
    return quote(text, safe="", errors="surrogatepass")


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


def _headers(request_id: str | None, deadline_s: float | None) -> dict[str, str]:
    headers = {} if request_id is None else {"X-Request-ID": request_id}
    return headers | ({} if deadline_s is None else {"X-Request-Timeout": f"{deadline_s:g}"})

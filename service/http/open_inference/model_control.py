"""Parsing of requests of Triton's model repository extension into version policies; independent of HTTP.

A client can choose which versions of a model serve, in the syntax of Triton's model configuration. Packages
come only from the models folder, so files in a request and all other configuration are refused.

Source: Triton's "Model Repository Extension", and `ModelVersionPolicy` in its `model_config.proto`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from service.errors import BadRequest
from service.models.loading import ALL_VERSIONS, VersionPolicy
from service.pipeline.models.entry import ModelState

MAX_VERSIONS = 100
STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.UNLOADING: "UNLOADING",
    ModelState.UNLOADED: "UNAVAILABLE",
    ModelState.REFUSED: "UNAVAILABLE",
}

Version = Annotated[int, Field(ge=1, le=2**63 - 1)]
Document = TypeVar("Document", bound=BaseModel)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IndexRequest(_Closed):
    """Filter of the index; `ready` lists only the versions that serve."""

    ready: StrictBool = False


class LatestVersions(_Closed):
    """The highest versions."""

    num_versions: Annotated[int, Field(ge=1, le=MAX_VERSIONS)] = 1


class AllVersions(_Closed):
    """Every version."""


class SpecificVersions(_Closed):
    """The listed versions."""

    versions: Annotated[list[Version], Field(min_length=1, max_length=MAX_VERSIONS)]


class VersionPolicyChoice(_Closed):
    """Exactly one of the three policies."""

    latest: LatestVersions | None = None
    all: AllVersions | None = None
    specific: SpecificVersions | None = None

    @model_validator(mode="after")
    def _check_exactly_one(self) -> VersionPolicyChoice:
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("must be one of latest, all and specific")
        return self

    def policy(self) -> VersionPolicy:
        """The policy in the form that the model repository takes."""
        if self.specific is not None:
            return VersionPolicy(ALL_VERSIONS, frozenset(self.specific.versions))
        return VersionPolicy(ALL_VERSIONS if self.latest is None else self.latest.num_versions)


class LoadConfig(_Closed):
    """The supported part of a model configuration."""

    version_policy: VersionPolicyChoice


class LoadParameters(_Closed):
    """Parameters of a load request."""

    config: str | None = Field(
        default=None,
        max_length=10_000,
        description="Versions that serve from now on: a JSON document in a string, with `version_policy` set "
        "to `latest`, `all` or `specific` as in Triton's model configuration. Default: the settings.",
        examples=['{"version_policy": {"specific": {"versions": [1]}}}'],
    )


class LoadRequest(_Closed):
    """Request to load a model."""

    parameters: LoadParameters = LoadParameters()


class UnloadRequest(BaseModel):
    """Request to unload a model; Triton's parameters about dependent models have no effect here."""

    parameters: dict[str, Any] = Field(default_factory=dict)


def parse(body: bytes, kind: type[Document]) -> Document:
    """Parse a body, which may be empty.

    Raises:
        BadRequest: the body is invalid; the message says where.
    """
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as exc:
        raise BadRequest("; ".join(map(_error_message, exc.errors(include_url=False)))) from None


def requested_policy(request: LoadRequest) -> VersionPolicy | None:
    """Return the version policy that a request asks for; None for the policy of the settings.

    Raises:
        BadRequest: the configuration is invalid, or contains anything but a version policy.
    """
    config = request.parameters.config
    return None if config is None else parse(config.encode(), LoadConfig).version_policy.policy()


def _error_message(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])[:200] or "The request"
    return f"{where}: {error['msg'].removeprefix('Value error, ').removeprefix('Input ')}"

"""Requests of Triton's model repository extension, between bytes and a policy; nothing here knows HTTP.

What a caller can say is which versions of a model are to serve, in the words of Triton's model configuration.
Packages come from the folder alone, so files in a request, and all else of a configuration, are refused.

Source: Triton's "Model Repository Extension" and the message `ModelVersionPolicy` of its model configuration.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from service.errors import BadRequest
from service.packages import ALL_VERSIONS, VersionPolicy
from service.pipeline.model_repository import ModelState

MOST_VERSIONS = 100
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
    """What to list: with `ready` only what serves."""

    ready: StrictBool = False


class Latest(_Closed):
    """So many of the highest versions."""

    num_versions: Annotated[int, Field(ge=1, le=MOST_VERSIONS)] = 1


class All(_Closed):
    """Every version."""


class Specific(_Closed):
    """These versions."""

    versions: Annotated[list[Version], Field(min_length=1, max_length=MOST_VERSIONS)]


class Policy(_Closed):
    """One of three."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Policy:
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("it is one of latest, all and specific")
        return self

    def policy(self) -> VersionPolicy:
        """The same, for the repository."""
        if self.specific is not None:
            return VersionPolicy(ALL_VERSIONS, frozenset(self.specific.versions))
        return VersionPolicy(ALL_VERSIONS if self.latest is None else self.latest.num_versions)


class ModelConfig(_Closed):
    """The part of a model's configuration that may be given."""

    version_policy: Policy


class LoadParameters(_Closed):
    """How to load; `config` is a JSON document in a string."""

    config: str | None = Field(
        default=None,
        max_length=10_000,
        description="Which versions serve from now on, as a JSON document: `version_policy` with `latest`, "
        "`all` or `specific`, as in Triton's model configuration. By default as the service is set up.",
        examples=['{"version_policy": {"specific": {"versions": [1]}}}'],
    )


class LoadRequest(_Closed):
    """A model to load."""

    parameters: LoadParameters = LoadParameters()


class UnloadRequest(BaseModel):
    """A model to unload; parameters are for models that depend on each other, which none does here."""

    parameters: dict[str, Any] = Field(default_factory=dict)


def parse(body: bytes, kind: type[Document]) -> Document:
    """The document in a body, which may be empty.

    Raises:
        BadRequest: it is not one; the message says where.
    """
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as exc:
        raise BadRequest("; ".join(map(_complaint, exc.errors(include_url=False)))) from None


def wanted_versions(request: LoadRequest) -> VersionPolicy | None:
    """Which versions a request asks for; None where it leaves that to the settings.

    Raises:
        BadRequest: the configuration is not one, or says more than that.
    """
    config = request.parameters.config
    return None if config is None else parse(config.encode(), ModelConfig).version_policy.policy()


def _complaint(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])[:200]
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {message}" if where else f"The request: {message}"

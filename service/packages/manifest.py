"""`model.json`, the manifest of a model package. docs/package.md describes its fields."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from service.clip.spec import ClipSpec, InputSpec, Sampling
from service.errors import PackageError
from service.packages.folders import MAX_VERSION, NAME_PATTERN, NAME_RULE, open_regular

MANIFEST_FILE = "model.json"
GRAPH_FILE = "model.onnx"
HEAD_FILE = "head.npz"  # in place of the graph in a taught package
# The graph's outputs. Packages may lack `features`.
LOGITS = "logits"
EVIDENCE = "evidence"
FEATURES = "features"
OUTPUTS = (LOGITS, EVIDENCE, FEATURES)
# Enough for the most labels with the most rows of reference logits; checked before the file is parsed.
MAX_MANIFEST_BYTES = 64_000_000
MAX_LABELS = 100_000
MAX_FRAMES = 1024
MAX_SIZE = 4096
MAX_PROBE_CLIPS = 16
MAX_FLOAT32 = 3.4028234663852886e38
SHOWN_ERRORS = 3
SHOWN_CHARACTERS = 60


def _finite_json(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse NaN and infinities: they are not JSON, and a manifest with NaN never equals itself."""
    json.dumps(values, allow_nan=False)
    return values


def _plain_name(name: str) -> str:
    """Check the name of a model, an engine or a file; a path could open a file outside the folder."""
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(f"must be {NAME_RULE}")
    if name == MANIFEST_FILE:
        raise ValueError(f"must not be {MANIFEST_FILE}")
    return name


def _sha256(digest: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("must be 64 hexadecimal digits")
    return digest


PlainName = Annotated[str, AfterValidator(_plain_name)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Details = Annotated[dict[str, Any], AfterValidator(_finite_json)]
Logit = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
Positive = Annotated[float, Field(gt=0)]


class Scores(StrEnum):
    """How logits become scores."""

    SOFTMAX = "softmax"  # a video shows one of the labels: scores add up to 1
    SIGMOID = "sigmoid"  # a video may show several labels, or none: each score is a separate probability


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class GraphFile(_Document):
    """A graph in the package folder. `parity` is its measured difference from the PyTorch network."""

    file: PlainName
    sha256: Sha256
    parity: Details = {}


class Reference(_Document):
    """Logits of the PyTorch network for the clips of `service.packages.probe_clips`.

    Attributes:
        probe: Version of the formula that makes the clips.
        bound: Largest difference that a loaded graph may have, relative to the largest of `logits`.
        logits: A row of C values for each probe clip.
    """

    probe: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    bound: Annotated[float, Field(gt=0, lt=1)]  # a bound of 1 would allow any answer
    logits: Annotated[tuple[tuple[Logit, ...], ...], Field(min_length=1, max_length=MAX_PROBE_CLIPS)]


class BaseReference(_Document):
    """The package whose features a taught model uses; `sha256` is the digest of its `model.onnx`."""

    name: PlainName
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    sha256: Sha256

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Manifest(_Document):
    """The checked contents of `model.json`. Unknown fields are ignored.

    Attributes:
        frames: T, the number of frames in a clip.
        stride: Distance in frames between two sampled frames with dense sampling.
        sha256: Digest of `model.onnx`, or of `head.npz` in a taught package.
        base: The base of a taught package, whose clip it shares; None in packages with a graph.
        threshold: Answers of a taught model are unsure when their best score is lower.
        graphs: By engine name, a graph that the engine loads instead of `model.onnx`.
        reference: None in packages from other sources.
        gmacs: 10^9 multiply-accumulates of the network for one clip; None if unknown.
        mirror: For each label the index of the label that it becomes when the clip is mirrored left to right;
            None if unknown.
        scores: How logits become scores.
        parity: Measured differences from the PyTorch network, for display only.
        report: Results measured while a taught package was learned, for display only.
        provenance: Origin of the weights (checkpoint, digest, versions of tools), for display only.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: PlainName
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    architecture: Text
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    sampling: Sampling
    stride: Annotated[int, Field(ge=1, le=1000)] = 1
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1, max_length=2)]
    labels: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_LABELS)]
    mirror: tuple[int, ...] | None = None
    scores: Scores = Scores.SOFTMAX
    precision: Text
    sha256: Sha256
    gmacs: Positive | None = None
    graphs: Annotated[dict[PlainName, GraphFile], Field(max_length=16)] = {}
    reference: Reference | None = None
    base: BaseReference | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    report: Details = {}
    parity: Details = {}
    provenance: Details = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check rules that involve several fields. The message starts with the field's name."""
        if len({item.name for item in self.inputs}) < len(self.inputs):
            raise ValueError("inputs: two have the same name")
        for item in self.inputs:
            if not item.name or not 1 <= item.size <= item.scale <= MAX_SIZE:
                raise ValueError(f"inputs: name must not be empty, and 1 <= size <= scale <= {MAX_SIZE}")
        if self.base is not None and (self.graphs or self.reference is not None):
            raise ValueError("base: a taught package has no graphs and no reference")
        if self.base is not None and self.scores is not Scores.SOFTMAX:
            raise ValueError("scores: those of a taught package are softmax")
        classes = len(self.labels)
        if len(set(self.labels)) < classes:
            raise ValueError("labels: two are the same")
        if self.reference is not None and any(len(row) != classes for row in self.reference.logits):
            raise ValueError(f"reference: a row of logits must have {classes} values, one for each label")
        if self.mirror is not None:
            valid = len(self.mirror) == classes and all(0 <= index < classes for index in self.mirror)
            if not valid or any(self.mirror[index] != label for label, index in enumerate(self.mirror)):
                raise ValueError(
                    f"mirror: must have {classes} indices of labels; mirroring twice must restore each label"
                )
        return self

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Create a manifest for a new package.

        Raises:
            PackageError: a field is missing or wrong; the message names the fields in one line.
        """
        try:
            return cls(**fields)
        except ValidationError as exc:
            raise PackageError(_one_line(exc.errors(include_url=False))) from None

    @cached_property
    def clip(self) -> ClipSpec:
        """Sampling and inputs, for the decoder."""
        return ClipSpec(self.frames, self.inputs, self.sampling, self.stride)

    @property
    def is_taught(self) -> bool:
        """Whether the package is a head on the features of a base."""
        return self.base is not None

    def graph(self, engine: str | None = None) -> GraphFile:
        """The graph for an engine: its own, or `model.onnx`; `head.npz` in a taught package."""
        own = None if engine is None else self.graphs.get(engine)
        file = GRAPH_FILE if self.base is None else HEAD_FILE
        return own or GraphFile(file=file, sha256=self.sha256, parity=self.parity)

    def graph_files(self) -> tuple[GraphFile, ...]:
        """All graphs, `model.onnx` first."""
        return self.graph(), *self.graphs.values()

    def to_json(self) -> dict[str, Any]:
        """Return the document of `model.json`."""
        of_taught = {"base", "threshold", "report"}
        return self.model_dump(
            mode="json", by_alias=True, exclude=of_taught if self.base is None else {"reference", "graphs"}
        )


def clip_fields(clip: ClipSpec) -> dict[str, Any]:
    """The fields of a manifest that describe the clip."""
    return {"frames": clip.frames, "sampling": clip.sampling, "stride": clip.stride, "inputs": clip.inputs}


def inputs_to_json(clip: ClipSpec) -> list[dict[str, Any]]:
    """The graph's inputs as the manifest and `/v1/models` show them."""
    return [asdict(item) | {"frames": item.frames.value} for item in clip.inputs]


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write `folder/model.json` and return its path."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/model.json`.

    Raises:
        PackageError: the file is missing, is not JSON, or a field is missing or wrong; the message names the
            folder and the fields in one line.
    """
    try:
        with open_regular(folder / MANIFEST_FILE) as file:
            document = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as exc:
        raise PackageError(f"{folder}: there is no {MANIFEST_FILE}") from exc
    except OSError as exc:
        raise PackageError(f"{folder}: {MANIFEST_FILE} cannot be read: {exc.strerror}") from exc
    if len(document) > MAX_MANIFEST_BYTES:
        raise PackageError(f"{folder}: {MANIFEST_FILE} has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        return Manifest.model_validate_json(document)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        if errors[0]["type"] == "json_invalid":
            reason = errors[0]["ctx"]["error"]
            raise PackageError(f"{folder}: {MANIFEST_FILE} cannot be read as JSON: {reason}") from None
        raise PackageError(f"{folder}: {MANIFEST_FILE}: {_one_line(errors)}") from None


def verify_graph(manifest: Manifest, folder: Path) -> None:
    """Check that the graphs in `folder` are the files that the manifest describes.

    Raises:
        PackageError: a file is missing or has a different SHA-256.
    """
    for graph in manifest.graph_files():
        try:
            digest = sha256_of(folder / graph.file)
        except OSError as exc:
            raise PackageError(f"{folder}: {graph.file} cannot be read: {exc.strerror}") from exc
        if digest != graph.sha256:
            raise PackageError(
                f"{folder}: {graph.file} has SHA-256 {digest}, {MANIFEST_FILE} says {graph.sha256}"
            )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file.

    Raises:
        OSError: see `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(errors: Sequence[ErrorDetails]) -> str:
    """Describe the first errors, such as `inputs.0.size is 'wide': should be a valid integer`."""
    shown = []
    for error in errors[:SHOWN_ERRORS]:
        message = re.sub(r"^(Value error, |Input |String )", "", error["msg"])
        field = ".".join(map(str, error["loc"]))[:SHOWN_CHARACTERS]
        if not field:
            shown.append(message)
        elif error["type"] == "missing":
            shown.append(f"{field} is missing")
        else:
            value = repr(error["input"])
            if len(value) > SHOWN_CHARACTERS:
                value = f"{value[:SHOWN_CHARACTERS]}..."
            shown.append(f"{field} is {value}: {message}")
    if len(errors) > SHOWN_ERRORS:
        shown.append(f"{len(errors) - SHOWN_ERRORS} more")
    return "; ".join(shown)

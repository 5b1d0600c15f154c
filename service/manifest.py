"""`model.json`: what a model package says of itself. Read, checked and written here, and nowhere else.

A package is a folder `MODELS/NAME/VERSION/` with `model.onnx` and `model.json`. docs/package.md
gives the schema.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.errors import PackageError

SCHEMA = 1
MANIFEST_FILE = "model.json"
GRAPH_FILE = "model.onnx"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_LABELS = 100_000
MAX_FRAMES = 1024
MAX_SIZE = 4096
MAX_GRAPHS = 16
MAX_PROBE_CLIPS = 16
LARGEST_FLOAT32 = 3.4028234663852886e38

Choice = TypeVar("Choice", Sampling, Frames)


@dataclass(frozen=True)
class GraphFile:
    """A graph of the package that one engine loads instead of `model.onnx`; it takes and gives the same."""

    file: str
    sha256: str
    parity: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entry of `graphs`."""
        return {"file": self.file, "sha256": self.sha256, "parity": self.parity}


@dataclass(frozen=True)
class Reference:
    """What the PyTorch network answers to the clips of `service.clip.probe`.

    Attributes:
        probe: version of the formula that the clips are made by.
        bound: largest difference that a loaded graph may have, relative to the largest of `logits`.
        logits: a row of C for each probe clip.
    """

    probe: int
    bound: float
    logits: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """The object `reference`."""
        return {"probe": self.probe, "bound": self.bound, "logits": [list(row) for row in self.logits]}


@dataclass(frozen=True)
class Manifest:
    """The checked contents of `model.json`.

    `graphs` are graphs of their own for engines, by the engine's name; the others load `model.onnx`.
    `reference` is what the network answers to clips that every server can make; None in packages from
    elsewhere. `gmacs` are the network's 10^9 multiply-accumulates for one clip, by which speeds are judged;
    None where nobody counted them.

    `parity` holds the measured differences from the PyTorch network, `provenance` where the weights came from
    (checkpoint file name, digest, tool versions); both are shown, never interpreted.
    """

    name: str
    version: int
    architecture: str
    clip: ClipSpec
    labels: tuple[str, ...]
    precision: str
    sha256: str
    graphs: dict[str, GraphFile] = field(default_factory=dict)
    reference: Reference | None = None
    gmacs: float | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def graph(self, engine: str | None = None) -> GraphFile:
        """The graph that an engine loads: its own, or `model.onnx`."""
        own = None if engine is None else self.graphs.get(engine)
        return own or GraphFile(GRAPH_FILE, self.sha256, self.parity)

    def graph_files(self) -> tuple[GraphFile, ...]:
        """All graphs of the package, `model.onnx` first."""
        return self.graph(), *self.graphs.values()

    def to_json(self) -> dict[str, Any]:
        """The document of `model.json`."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "architecture": self.architecture,
            "frames": self.clip.frames,
            "sampling": self.clip.sampling.value,
            "stride": self.clip.stride,
            "inputs": inputs_to_json(self.clip),
            "labels": list(self.labels),
            "precision": self.precision,
            "sha256": self.sha256,
            "gmacs": self.gmacs,
            "graphs": {engine: graph.to_json() for engine, graph in self.graphs.items()},
            "reference": None if self.reference is None else self.reference.to_json(),
            "parity": self.parity,
            "provenance": self.provenance,
        }


def inputs_to_json(clip: ClipSpec) -> list[dict[str, Any]]:
    """The graph's inputs as the manifest and `/v1/models` show them."""
    return [
        {"name": spec.name, "frames": spec.frames.value, "size": spec.size, "scale": spec.scale}
        for spec in clip.inputs
    ]


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write `folder/model.json` and return its path."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/model.json`.

    Raises:
        PackageError: the file is missing, is not JSON, or a field is missing or wrong; the message names it.
    """
    try:
        document = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise PackageError(f"{folder}: there is no {MANIFEST_FILE}") from exc
    except (OSError, ValueError) as exc:
        raise PackageError(f"{folder}: {MANIFEST_FILE} cannot be read as JSON") from exc
    try:
        return _parse(document)
    except PackageError as exc:
        raise PackageError(f"{folder}: {MANIFEST_FILE}: {exc.message}") from exc


def verify_graph(manifest: Manifest, folder: Path) -> None:
    """Check that the graphs in `folder` are the files that the manifest was written for.

    Raises:
        PackageError: a file is missing or its SHA-256 is another one.
    """
    for graph in manifest.graph_files():
        try:
            digest = sha256_of(folder / graph.file)
        except OSError as exc:
            raise PackageError(f"{folder}: {graph.file} cannot be read") from exc
        if digest != graph.sha256:
            raise PackageError(
                f"{folder}: {graph.file} has SHA-256 {digest}, {MANIFEST_FILE} says {graph.sha256}"
            )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(document: object) -> Manifest:
    if not isinstance(document, dict):
        raise PackageError("the document is not an object")
    if document.get("schema") != SCHEMA:
        raise PackageError(f"schema is {document.get('schema')!r}, this version reads {SCHEMA}")
    frames = _integer(document, "frames", 1, MAX_FRAMES)
    inputs = tuple(_parse_input(item) for item in _list(document, "inputs"))
    if not 1 <= len(inputs) <= 2 or len({item.name for item in inputs}) != len(inputs):
        raise PackageError("inputs must be one or two entries with names of their own")
    labels = _list(document, "labels")
    if (
        not labels
        or len(labels) > MAX_LABELS
        or not all(isinstance(label, str) and label for label in labels)
    ):
        raise PackageError("labels must be a list of non-empty strings")
    if len(set(labels)) != len(labels):
        raise PackageError("labels must not repeat")
    name = _string(document, "name")
    if not NAME_PATTERN.fullmatch(name):
        raise PackageError(f"name {name!r} must be letters, digits, '.', '_' and '-'")
    return Manifest(
        name=name,
        version=_integer(document, "version", 1, 2**31 - 1),
        architecture=_string(document, "architecture"),
        clip=ClipSpec(
            frames=frames,
            inputs=inputs,
            sampling=_choice(Sampling, document, "sampling"),
            stride=_integer(document, "stride", 1, 1000) if "stride" in document else 1,
        ),
        labels=tuple(labels),
        precision=_string(document, "precision"),
        sha256=_digest(document),
        gmacs=_positive(document, "gmacs"),
        graphs=_parse_graphs(_object(document, "graphs")),
        reference=_parse_reference(document, len(labels)),
        parity=_object(document, "parity"),
        provenance=_object(document, "provenance"),
    )


def _parse_graphs(entries: dict[str, Any]) -> dict[str, GraphFile]:
    if len(entries) > MAX_GRAPHS:
        raise PackageError(f"graphs has {len(entries)} entries, at most {MAX_GRAPHS} are allowed")
    return {engine: _parse_graph(item) for engine, item in entries.items()}


def _parse_graph(item: object) -> GraphFile:
    if not isinstance(item, dict):
        raise PackageError("an entry of graphs is not an object")
    file = _string(item, "file")
    # A plain name: nothing outside the package's folder is ever opened.
    if not NAME_PATTERN.fullmatch(file) or file == MANIFEST_FILE:
        raise PackageError(f"a graph's file {file!r} must be a name of letters, digits, '.', '_' and '-'")
    return GraphFile(file=file, sha256=_digest(item), parity=_object(item, "parity"))


def _parse_reference(document: dict[str, Any], classes: int) -> Reference | None:
    if document.get("reference") is None:
        return None
    reference = _object(document, "reference")
    bound = _positive(reference, "bound")
    if bound is None:
        raise PackageError("reference has no bound")
    if bound >= 1:
        raise PackageError(
            f"the bound of reference must be below 1, which allows any answer; it is {bound:g}"
        )
    rows = _list(reference, "logits")
    if not 1 <= len(rows) <= MAX_PROBE_CLIPS:
        raise PackageError(f"reference must have logits of 1 to {MAX_PROBE_CLIPS} clips, it has {len(rows)}")
    if not all(isinstance(row, list) and len(row) == classes for row in rows):
        raise PackageError(f"reference must have logits in rows of {classes}, as many as there are labels")
    if not all(map(_is_float32, (value for row in rows for value in row))):
        raise PackageError("the logits of reference must be finite numbers")
    return Reference(
        probe=_integer(reference, "probe", 1, 2**31 - 1),
        bound=bound,
        logits=tuple(tuple(float(value) for value in row) for row in rows),
    )


def _is_float32(value: object) -> bool:
    """Whether it is a finite number of float32; JSON as Python reads it has NaN and endless integers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT32


def _digest(document: dict[str, Any]) -> str:
    sha256 = _string(document, "sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise PackageError("sha256 is not 64 hexadecimal digits")
    return sha256


def _parse_input(item: object) -> InputSpec:
    if not isinstance(item, dict):
        raise PackageError("an entry of inputs is not an object")
    size = _integer(item, "size", 1, MAX_SIZE)
    return InputSpec(
        name=_string(item, "name"),
        frames=_choice(Frames, item, "frames"),
        size=size,
        scale=_integer(item, "scale", size, MAX_SIZE),
    )


def _integer(document: dict[str, Any], key: str, low: int, high: int) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise PackageError(f"{key} must be an integer from {low} to {high}, it is {value!r}")
    return value


def _positive(document: dict[str, Any], key: str) -> float | None:
    """A number above 0, or None where there is none."""
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise PackageError(f"{key} must be a number above 0, it is {value!r}")
    return float(value)


def _string(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise PackageError(f"{key} must be a non-empty string, it is {value!r}")
    return value


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise PackageError(f"{key} must be a list")
    return value


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise PackageError(f"{key} must be an object")
    return value


def _choice(kind: type[Choice], document: dict[str, Any], key: str) -> Choice:
    value = _string(document, key)
    try:
        return kind(value)
    except ValueError as exc:
        allowed = ", ".join(kind)
        raise PackageError(f"{key} must be one of {allowed}, it is {value!r}") from exc

"""Weights as safetensors: tensors by name, and this project's configuration as metadata.

The metadata of our own files are `format` and `version`, as in our checkpoints, and as JSON `config` and
`training` (labels, mirror images, clip). Files of other projects have tensors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_export.checkpoints.torch_file import CheckpointError
from service.packages.files import atomic_write

SUFFIX = ".safetensors"
JSON_FIELDS = ("config", "training")


def read_safetensors(path: Path) -> dict[str, Any]:
    """The document of a file, as `read_torch_file` returns it: our own format, or tensors by name.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            metadata: dict[str, str] = file.metadata() or {}
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: there is no such file") from exc
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{path}: is not a safetensors file, or is damaged or cut short") from exc
    if not metadata.keys() >= {"version", *JSON_FIELDS}:
        return weights
    try:
        parts = {name: json.loads(metadata[name]) for name in ("version", *JSON_FIELDS)}
    except ValueError as exc:
        raise CheckpointError(f"{path}: its metadata are damaged") from exc
    return {"format": metadata.get("format"), "weights": weights, **parts}


def write_safetensors(path: Path, document: Mapping[str, Any]) -> None:
    """Write our own format; what JSON cannot hold, such as the optimiser's state, is left out of `training`.

    Args:
        path: the file.
        document: `format`, `version`, `config`, `weights` and `training`.

    Raises:
        CheckpointError: the file cannot be written; an existing one is unchanged.
    """
    weights: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in document["weights"].items()}
    training = {name: value for name, value in document["training"].items() if _is_plain(value)}
    metadata = {
        "format": document["format"],
        "version": json.dumps(document["version"]),
        "config": json.dumps(document["config"]),
        "training": json.dumps(training),
    }
    try:
        with atomic_write(path) as file:
            file.write(save(weights, metadata))
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be written ({exc.strerror})") from exc


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True

"""Taught packages on disk: a manifest that names its base, and `head.npz` in place of a graph.

MODELS/NAME/VERSION/model.json      "base": {"name", "version", "sha256"}, and "sha256" of head.npz
MODELS/NAME/VERSION/head.npz        weights (Q, F, C), bias (C,), temperature
MODELS/NAME/VERSION/MODEL_CARD.md   for people
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from service.errors import PackageError
from service.packages.files import DAMAGED_ARRAYS
from service.packages.folders import next_version, open_regular
from service.packages.manifest import (
    HEAD_FILE,
    BaseReference,
    Manifest,
    clip_fields,
    sha256_of,
    write_manifest,
)
from service.packages.staged_package import staged_package
from service.teaching.card import model_card
from service.teaching.head import Head
from service.teaching.learning.learn import Taught

CARD_FILE = "MODEL_CARD.md"
# Far larger than any head: 4 segments x 2048 features x 1000 labels take 33 MB.
MAX_HEAD_BYTES = 1_000_000_000


def read_head(folder: Path, manifest: Manifest) -> Head:
    """Read `head.npz` of a taught package; `verify_graph` checks its checksum.

    Raises:
        PackageError: the file cannot be read, is not a head, or does not match the labels.
    """
    path = folder / HEAD_FILE
    try:
        with open_regular(path) as file:
            content = file.read(MAX_HEAD_BYTES + 1)
    except OSError as exc:
        raise PackageError(f"{folder}: {HEAD_FILE} cannot be read: {exc.strerror}") from exc
    if len(content) > MAX_HEAD_BYTES:
        raise PackageError(f"{folder}: {HEAD_FILE} has more than {MAX_HEAD_BYTES} bytes")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            head = Head(arrays["weights"], arrays["bias"], float(arrays["temperature"]))
    except DAMAGED_ARRAYS as exc:
        raise PackageError(f"{folder}: {HEAD_FILE} holds no head: {exc}") from exc
    if head.classes != len(manifest.labels):
        raise PackageError(
            f"{folder}: {HEAD_FILE} has {head.classes} classes, the manifest {len(manifest.labels)} labels"
        )
    return head


def check_taught_name(name: str, base: Manifest) -> None:
    """Raise `PackageError` if a taught model has the name of its base."""
    if base.name == name:
        raise PackageError(f"a taught model needs another name than its base, {name!r}")


def write_taught(
    models: Path,
    name: str,
    base: Manifest,
    taught: Taught,
    *,
    version: int | None = None,
) -> Manifest:
    """Write a taught package `models/name/VERSION` atomically and return its manifest.

    Args:
        models: folder of packages; created if it does not exist.
        name: name of the taught model.
        base: manifest of the model whose features the head uses.
        taught: the learned head and its report.
        version: the next free version by default.

    Raises:
        PackageError: the name, the labels or the version are not valid, or the folder cannot be written.
    """
    check_taught_name(name, base)
    if version is None:
        while True:  # retry, because another process may write the next version first
            version = next_version(models, name)
            try:
                return write_taught(models, name, base, taught, version=version)
            except PackageError:
                if not (models / name / str(version)).exists():
                    raise
    with staged_package(models, name, version) as folder:
        with (folder / HEAD_FILE).open("wb") as file:
            np.savez(
                file,
                weights=taught.head.weights,
                bias=taught.head.bias,
                temperature=np.float64(taught.head.temperature),
            )
        manifest = Manifest.create(
            schema=1,
            name=name,
            version=version,
            architecture=base.architecture,
            **clip_fields(base.clip),
            labels=taught.labels,
            mirror=taught.mirror,
            precision=base.precision,
            sha256=sha256_of(folder / HEAD_FILE),
            gmacs=base.gmacs,
            base=BaseReference(name=base.name, version=base.version, sha256=base.sha256),
            threshold=taught.threshold,
            report=taught.report.to_json(),
        )
        card = model_card(taught.report, name, version, str(manifest.base))
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        write_manifest(manifest, folder)
    return manifest

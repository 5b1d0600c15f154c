"""A package on every engine that is installed, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.bench.figures import Reference, entry, product_entry
from service.bench.machine import machine
from service.bench.matrix_product import matrix_product
from service.bench.race import Plan, Result, Watch, race
from service.clip.probe import PROBE, PROBE_CLIPS, probe_clips
from service.contenders.contender import Arrays, Contender, Workload
from service.errors import PackageError
from service.manifest import MANIFEST_FILE, Manifest, read_manifest, verify_graph
from service.packages import find_packages
from service.runtime.batches import repeated
from service.runtime.config import RuntimeConfig
from service.runtime.providers import (
    Candidate,
    arithmetics,
    installed_providers,
    open_candidate,
    open_session,
)
from service.runtime.session import Session

LIBRARIES = ("blvnet-serve", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        folder: of the package, `MODELS/NAME/VERSION`.
        providers: which of them; empty for all that are installed.
        threads: with so many threads each, one heat after the other.
        batches: in batches of so many clips, ascending.
        plan: how long to look.
    """

    folder: Path
    providers: Sequence[str]
    threads: Sequence[int]
    batches: Sequence[int]
    plan: Plan


def measure(request: Request, watch: Watch) -> dict[str, Any]:
    """Measure a package; the document of `blvnet bench --json`.

    Raises:
        PackageError: the package cannot be read.
    """
    folder = find_package(request.folder)
    manifest = read_manifest(folder)
    verify_graph(manifest, folder)
    heats = [
        [matrix_product(threads), *contenders(folder, request.providers, threads, request.batches)]
        for threads in request.threads
    ]
    question = probe_clips(manifest.clip)
    results = race(heats, repeated(question, max(request.batches)), request.plan, watch, question)
    reference = _reference(manifest, results)
    return {
        "package": _described(manifest),
        "machine": machine(LIBRARIES),
        "plan": asdict(request.plan),
        "reference": reference.source,
        "matrix_product": [product_entry(product) for product, *_ in results],
        "results": [_entry(result, product, reference) for product, *heat in results for result in heat],
    }


def find_package(path: Path) -> Path:
    """The folder of the package that `path` means: itself, or the highest version in it.

    Raises:
        PackageError: it is neither.
    """
    folder = path.resolve()
    if (folder / MANIFEST_FILE).is_file():
        return folder
    if any((version / MANIFEST_FILE).is_file() for version in path.glob("*/")):
        return next(package.folder for package in find_packages(folder.parent) if package.name == folder.name)
    raise PackageError(f"{path}: there is no model package ({MANIFEST_FILE}) in it")


def contenders(
    folder: Path, providers: Sequence[str], threads: int, batches: Sequence[int]
) -> list[Contender]:
    """A package on each of the providers, or on all that are installed where none is named.

    Where a provider may compute it in several arithmetics, each competes.

    Raises:
        PackageError: its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    gflop = None if manifest.gmacs is None else 2 * manifest.gmacs
    found = []
    for provider in providers or installed_providers():
        choices = arithmetics(provider, manifest.precision)
        for arithmetic in choices:
            options = {"folder": folder, "candidate": Candidate(provider, arithmetic), "threads": threads}
            name = provider if len(choices) == 1 else f"{provider} {arithmetic}"
            factory = "service.bench.package:load_package"
            found.append(Contender(name, factory, options, threads, tuple(batches), gflop))
    return found


def load_package(folder: Path, candidate: Candidate, threads: int) -> Workload:
    """A package as a workload, loaded as a server loads it."""
    return _workload(open_candidate(candidate, folder, read_manifest(folder), RuntimeConfig(threads=threads)))


def load_graph(graph: Path, provider: str, threads: int) -> Workload:
    """A graph as a workload."""
    return _workload(open_session(graph, provider, threads))


def _workload(session: Session) -> Workload:
    def run(clips: Arrays) -> Arrays:
        outputs = session.run(clips)
        return {"logits": outputs.logits, "evidence": outputs.evidence}

    return run


def _entry(result: Result, product: Result, reference: Reference) -> dict[str, Any]:
    candidate: Candidate = result.contender.options["candidate"]
    about = {"provider": candidate.provider, "arithmetic": candidate.arithmetic.value}
    return about | entry(result, product, reference)


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "architecture": manifest.architecture,
        "precision": manifest.precision,
        "sha256": manifest.sha256,
        "gmacs": manifest.gmacs,
    }


def _reference(manifest: Manifest, heats: Sequence[Sequence[Result]]) -> Reference:
    """The package's own, which is PyTorch's; in packages without one the first contender's."""
    stored = manifest.reference
    if stored is not None and stored.probe == PROBE and len(stored.logits) == PROBE_CLIPS:
        logits = np.array(stored.logits, np.float32)
        return Reference("the package's reference", {"logits": logits}, stored.bound)
    for result in (result for heat in heats for result in heat):
        if result.outputs:
            return Reference(result.contender.title, result.outputs)
    return Reference(None)

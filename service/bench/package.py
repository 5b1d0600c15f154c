"""Comparative measurement of a package on every installed engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.bench.figures import ExpectedOutputs, entry, product_entry
from service.bench.machine import machine, matrix_product
from service.bench.measurement import OnStep, Plan, WorkloadResult, measure_groups
from service.engines.batch_sizes import repeated
from service.engines.providers import (
    Candidate,
    EngineConfig,
    arithmetics,
    installed_providers,
    open_candidate,
    open_session,
)
from service.engines.session import Session
from service.errors import PackageError
from service.packages.folders import scan_packages
from service.packages.manifest import MANIFEST_FILE, Manifest, read_manifest, verify_graph
from service.packages.probe_clips import PROBE, PROBE_CLIPS, probe_clips
from service.subprocesses.workload import Arrays, RunBatch, Workload

LIBRARIES = ("blvnet-serve", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino")


def measure_package(
    path: Path,
    providers: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    plan: Plan,
    on_step: OnStep,
) -> dict[str, Any]:
    """Measure a package and return the document of `blvnet bench --json`.

    Args:
        path: Folder of the package, or of the model for its highest version.
        providers: Providers to measure; empty for all installed ones.
        threads: Numbers of threads, measured sequentially.
        batches: Batch sizes, ascending.
        plan: How long to measure.
        on_step: Called at the beginning of each step.

    Raises:
        PackageError: the package cannot be read.
    """
    folder = find_package(path)
    manifest = read_manifest(folder)
    verify_graph(manifest, folder)
    groups = [
        [matrix_product(count), *package_workloads(folder, providers, count, batches)] for count in threads
    ]
    sample = probe_clips(manifest.clip)
    results = measure_groups(groups, repeated(sample, max(batches)), plan, on_step, sample)
    expected = _expected_outputs(manifest, results)
    entries = []
    for product, *group in results:
        for result in group:
            candidate: Candidate = result.workload.options["candidate"]
            about = {"provider": candidate.provider, "arithmetic": candidate.arithmetic.value}
            entries.append(about | entry(result, product, expected))
    return {
        "package": {
            "name": manifest.name,
            "version": manifest.version,
            "architecture": manifest.architecture,
            "precision": manifest.precision,
            "sha256": manifest.sha256,
            "gmacs": manifest.gmacs,
        },
        "machine": machine(LIBRARIES),
        "plan": plan.to_json(),
        "reference": expected.source,
        "matrix_product": [product_entry(product) for product, *_ in results],
        "results": entries,
    }


def find_package(path: Path) -> Path:
    """Return the folder of a package: `path`, or the highest version in it.

    Raises:
        PackageError: there is no package.
    """
    folder = path.resolve()
    if (folder / MANIFEST_FILE).is_file():
        return folder
    if any((version / MANIFEST_FILE).is_file() for version in path.glob("*/")):
        packages = scan_packages(folder.parent).packages
        return next(package.folder for package in packages if package.name == folder.name)
    raise PackageError(f"{path}: there is no model package ({MANIFEST_FILE}) in it")


def package_workloads(
    folder: Path, providers: Sequence[str], threads: int, batches: Sequence[int]
) -> list[Workload]:
    """Return workloads for a package on each provider (all installed ones by default), in each arithmetic.

    Raises:
        PackageError: the package's manifest cannot be read.
    """
    manifest = read_manifest(folder)
    gflop = None if manifest.gmacs is None else 2 * manifest.gmacs
    workloads = []
    for provider in providers or installed_providers():
        allowed = arithmetics(provider, manifest.precision)
        for arithmetic in allowed:
            options = {"folder": folder, "candidate": Candidate(provider, arithmetic), "threads": threads}
            name = provider if len(allowed) == 1 else f"{provider} {arithmetic}"
            factory = "service.bench.package:load_package"
            workloads.append(Workload(name, factory, options, threads, tuple(batches), gflop))
    return workloads


def load_package(folder: Path, candidate: Candidate, threads: int) -> RunBatch:
    """Load a package as a server does."""
    return _runner(open_candidate(candidate, folder, read_manifest(folder), EngineConfig(threads=threads)))


def load_graph(graph: Path, provider: str, threads: int) -> RunBatch:
    """Load a graph without a package."""
    return _runner(open_session(graph, provider, threads))


def _runner(session: Session) -> RunBatch:
    def run(clips: Arrays) -> Arrays:
        outputs = session.run(clips)
        return {"logits": outputs.logits, "evidence": outputs.evidence}

    return run


def _expected_outputs(manifest: Manifest, groups: Sequence[Sequence[WorkloadResult]]) -> ExpectedOutputs:
    """Return the package's reference from PyTorch, or the outputs of the first workload if it has none."""
    stored = manifest.reference
    if stored is not None and stored.probe == PROBE and len(stored.logits) == PROBE_CLIPS:
        logits = np.array(stored.logits, np.float32)
        return ExpectedOutputs("the package's reference", {"logits": logits}, stored.bound)
    for result in (result for group in groups for result in group):
        if result.outputs:
            return ExpectedOutputs(result.workload.title, result.outputs)
    return ExpectedOutputs(None)

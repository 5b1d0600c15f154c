"""Verification of a loaded package: its signature, a test run, and its outputs for the probe clips."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from service.clip.spec import ClipSpec
from service.engines.memory import return_freed_memory
from service.engines.providers import Candidate, EngineConfig, open_candidate
from service.engines.session import Inputs, Outputs, Session, Tensor
from service.errors import PackageError
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS, Manifest, Reference, read_manifest
from service.packages.probe_clips import PROBE, probe_clips
from service.subprocesses.workload import Arrays, RunBatch


def open_verified(
    candidate: Candidate, folder: Path, manifest: Manifest, config: EngineConfig, clips: Inputs | None
) -> Session:
    """Load a package on an engine and check it against its manifest.

    Args:
        candidate: The engine, with its provider and arithmetic.
        folder: Folder of the package, whose checksums have been verified.
        manifest: Manifest of the package.
        config: How to run it.
        clips: Result of `reference_clips`.

    Raises:
        ProviderUnavailable: the engine is not available.
        PackageError: the graph cannot be loaded or does not match the manifest.
        InferenceFailed: the graph does not run.
    """
    session = open_candidate(candidate, folder, manifest, config)
    with ExitStack() as on_failure:
        on_failure.callback(session.close)
        check_session(session, manifest, clips)
        on_failure.pop_all()
    return_freed_memory()
    return session


def load_verified(folder: Path, candidate: Candidate, config: EngineConfig) -> RunBatch:
    """Load a verified package as a workload for timing, without outputs.

    Raises:
        BlvnetError: see `open_verified`.
    """
    manifest = read_manifest(folder)
    session = open_verified(candidate, folder, manifest, config, reference_clips(manifest))

    def run(clips: Arrays) -> Arrays:
        session.run(clips)
        return {}

    return run


def reference_clips(manifest: Manifest) -> Inputs | None:
    """Return the probe clips for which the package has a reference; None for packages without a reference.

    Raises:
        PackageError: the reference belongs to another version of the probe clips.
    """
    reference = manifest.reference
    if reference is None:
        return None
    if reference.probe != PROBE:
        raise PackageError(
            f"its reference is for probe clips of version {reference.probe}, this service makes {PROBE}"
        )
    return probe_clips(manifest.clip, len(reference.logits))


def check_session(session: Session, manifest: Manifest, clips: Inputs | None) -> None:
    """Check a session's signature, run a black clip, and compare the outputs for the probe clips.

    The black clip also makes the engine allocate its memory before the first request. `clips` is the result
    of `reference_clips`.

    Raises:
        PackageError: a check failed.
        InferenceFailed: the graph does not run.
    """
    check_signature(session, manifest)
    outputs = session.run(black_clip(manifest.clip))
    classes = len(manifest.labels)
    moments = outputs.evidence.shape[1] if outputs.evidence.ndim == 3 else 0
    if outputs.logits.shape != (1, classes) or outputs.evidence.shape != (1, moments, classes) or moments < 1:
        raise PackageError(
            f"for one clip the graph returns logits {outputs.logits.shape} and evidence"
            f" {outputs.evidence.shape}, which does not fit {classes} labels"
        )
    if outputs.features is not None and outputs.features.shape[:2] != (1, moments):
        raise PackageError(
            f"for one clip the graph gives features {outputs.features.shape} for {moments} moments"
        )
    if not outputs.finite:
        raise PackageError("a black clip gives values that are not finite")
    # One by one: a batch would take more memory.
    probes = probe_clips(manifest.clip, 1) if clips is None else clips
    count = 1 if manifest.reference is None else len(manifest.reference.logits)
    with ThreadPoolExecutor(session.runtime.concurrency) as threads:
        answers = list(threads.map(session.run, [one_clip(probes, row) for row in range(count)]))
    check_answers(Outputs.concatenate(answers), manifest.reference)


def check_answers(outputs: Outputs, reference: Reference | None) -> None:
    """Check the outputs for the probe clips, which may be repeated in order.

    Raises:
        PackageError: an output is not finite, or the logits differ from the reference by more than its bound.
    """
    if not outputs.finite:
        raise PackageError("the probe clips give values that are not finite")
    if reference is None:
        return
    rows = np.array(reference.logits, np.float64)
    expected = rows[np.arange(len(outputs.logits)) % len(rows)]
    difference = float(np.abs(outputs.logits.astype(np.float64) - expected).max())
    relative = difference / (float(np.abs(expected).max()) or 1.0)
    if relative > reference.bound:
        raise PackageError(
            f"its answer to the probe clips is not PyTorch's: the largest difference is {relative:.2g} of the"
            f" largest logit, {reference.bound:g} is allowed"
        )


def check_signature(session: Session, manifest: Manifest) -> None:
    """Compare the names, types and shapes of the graph's inputs and outputs with the manifest.

    Raises:
        PackageError: they differ. The message names the tensor and both sides.
    """
    frames, classes = manifest.clip.frames, len(manifest.labels)
    inputs = [Tensor(item.name, "uint8", (None, *item.shape(frames))) for item in manifest.clip.inputs]
    _check_tensors("input", session.inputs, inputs)

    declared = {tensor.name: tensor for tensor in session.outputs}
    moments = _axis(declared.get(EVIDENCE), 1)
    outputs = [
        Tensor(LOGITS, "float32", (None, classes)),
        Tensor(EVIDENCE, "float32", (None, moments, classes)),
    ]
    if FEATURES in declared:
        outputs.append(Tensor(FEATURES, "float32", (None, moments, _axis(declared[FEATURES], 2))))
    _check_tensors("output", session.outputs, outputs)


def black_clip(spec: ClipSpec) -> Inputs:
    """Return a batch of one clip of zeros."""
    return {item.name: np.zeros((1, *item.shape(spec.frames)), np.uint8) for item in spec.inputs}


def one_clip(clips: Inputs, row: int) -> Inputs:
    """Return a batch with one of the clips."""
    return {name: array[row : row + 1] for name, array in clips.items()}


def _axis(tensor: Tensor | None, axis: int) -> int | None:
    """Return the length of an axis that the manifest does not determine."""
    return tensor.shape[axis] if tensor is not None and len(tensor.shape) == 3 else None


def _check_tensors(kind: str, declared: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    actual = {tensor.name: tensor for tensor in declared}
    names = {tensor.name for tensor in expected}
    if actual.keys() != names:
        raise PackageError(
            f"the graph's {kind}s are {', '.join(sorted(actual))}, they must be {', '.join(sorted(names))}"
        )
    for tensor in expected:
        own = actual[tensor.name]
        if own.dtype != tensor.dtype:
            raise PackageError(f"{kind} {own.name} is {own.dtype}, it must be {tensor.dtype}")
        # With a fixed batch axis, requests could not share a run.
        if own.shape != tensor.shape:
            raise PackageError(f"{kind} {own.name} has shape {_shape(own)}, it must be {_shape(tensor)}")


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join("N" if length is None else str(length) for length in tensor.shape) + ")"

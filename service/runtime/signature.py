"""Does a graph take and give what its manifest says? Asked before a model serves, and answered by name."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from service.clip.spec import ClipSpec
from service.errors import PackageError
from service.manifest import Manifest
from service.runtime.session import Inputs, Session, Tensor

LOGITS = "logits"
EVIDENCE = "evidence"


def check_signature(session: Session, manifest: Manifest) -> None:
    """Compare names, types and shapes.

    Raises:
        PackageError: they differ; the message names the tensor and both sides.
    """
    given_inputs = _by_name(session.inputs)
    wanted_inputs = [
        Tensor(item.name, "uint8", (None, *item.shape(manifest.clip.frames))) for item in manifest.clip.inputs
    ]
    _check_names("inputs", given_inputs, [tensor.name for tensor in wanted_inputs])
    for wanted in wanted_inputs:
        _check_tensor("input", given_inputs[wanted.name], wanted)

    given_outputs = _by_name(session.outputs)
    _check_names("outputs", given_outputs, [LOGITS, EVIDENCE])
    classes = len(manifest.labels)
    _check_tensor("output", given_outputs[LOGITS], Tensor(LOGITS, "float32", (None, classes)))
    evidence = given_outputs[EVIDENCE]
    moments = evidence.shape[1] if len(evidence.shape) == 3 else None
    _check_tensor("output", evidence, Tensor(EVIDENCE, "float32", (None, moments, classes)))


def warm_up(session: Session, manifest: Manifest) -> None:
    """Run a black clip, so that the first caller pays for no allocation, and look at what comes out.

    Raises:
        PackageError: the shapes or values that come out are not those of a classifier.
        InferenceFailed: the graph does not run.
    """
    outputs = session.run(black_clip(manifest.clip))
    classes = len(manifest.labels)
    moments = outputs.evidence.shape[1] if outputs.evidence.ndim == 3 else 0
    if outputs.logits.shape != (1, classes) or outputs.evidence.shape != (1, moments, classes) or moments < 1:
        raise PackageError(
            f"a clip gives logits {outputs.logits.shape} and evidence {outputs.evidence.shape}"
            f" for {classes} labels"
        )
    if not (np.isfinite(outputs.logits).all() and np.isfinite(outputs.evidence).all()):
        raise PackageError("a black clip gives values that are not finite")


def black_clip(spec: ClipSpec) -> Inputs:
    """One clip of zeros for every input."""
    return {item.name: np.zeros((1, *item.shape(spec.frames)), np.uint8) for item in spec.inputs}


def _by_name(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in tensors}


def _check_names(what: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    if set(given) != set(wanted):
        raise PackageError(
            f"the graph's {what} are {', '.join(sorted(given))}, they must be {', '.join(sorted(wanted))}"
        )


def _check_tensor(what: str, given: Tensor, wanted: Tensor) -> None:
    if given.dtype != wanted.dtype:
        raise PackageError(f"{what} {given.name} is {given.dtype}, it must be {wanted.dtype}")
    # The batch axis must be free, or requests could not share a run.
    fits = len(given.shape) == len(wanted.shape) and given.shape[:1] == (None,)
    if not fits or given.shape[1:] != wanted.shape[1:]:
        raise PackageError(f"{what} {given.name} has shape {_shape(given)}, it must be {_shape(wanted)}")


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join("N" if length is None else str(length) for length in tensor.shape) + ")"

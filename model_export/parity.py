"""Proof of an exported graph: onnxruntime and PyTorch on the same clips, compared within a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.graph import OUTPUTS
from model_export.networks.pixels import normalise
from model_export.precision import BOUNDS, Precision
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

BATCHES = (1, 3)  # 3 differs from the exporter's example batch of 2 and from every power of 2
CLIPS = sum(BATCHES)
ERRORS_ONLY = 3

Clip = Mapping[str, NDArray[np.uint8]]  # input name -> (T_b, size, size, 3)


class ParityError(BlvnetError):
    """A graph that does not compute what the PyTorch network does."""


@dataclass(frozen=True)
class Parity:
    """Largest differences found, each relative to the largest magnitude of that output.

    `source` says what the clips were; `top1` in how many of them both sides have the same best label.
    """

    source: str
    clips: int
    logits: float
    evidence: float
    top1: int
    bound: float

    @property
    def holds(self) -> bool:
        """Whether both differences are within the bound; not if any output was not a number."""
        return self.logits <= self.bound and self.evidence <= self.bound

    def to_json(self) -> dict[str, Any]:
        """The `parity` object of the manifest."""
        return {
            "bound": self.bound,
            "logits": float(f"{self.logits:.3g}"),
            "evidence": float(f"{self.evidence:.3g}"),
            "same_top1": self.top1,
            "clips": self.clips,
            "clip_source": self.source,
            "batches": list(BATCHES),
        }


def prove(
    network: nn.Module,
    graph: Path,
    spec: ClipSpec,
    clips: Sequence[Clip],
    source: str,
    precision: Precision,
) -> Parity:
    """Compare `network` with the graph written from it on `CLIPS` clips, in batches of `BATCHES`.

    Raises:
        ParityError: they differ by more than the precision's bound.
    """
    assert len(clips) == CLIPS
    reference = [_in_torch(network, spec, [clip]) for clip in clips]
    session = _session(graph)
    measured: list[tuple[NDArray[np.float32], ...]] = []
    for size in BATCHES:
        batch = _batch(spec, clips[len(measured) : len(measured) + size])
        outputs = session.run(list(OUTPUTS), batch)
        measured += [tuple(output[i : i + 1] for output in outputs) for i in range(size)]
    parity = Parity(
        source=source,
        clips=len(clips),
        logits=_difference(reference, measured, OUTPUTS.index("logits")),
        evidence=_difference(reference, measured, OUTPUTS.index("evidence")),
        top1=sum(int(a[0].argmax() == b[0].argmax()) for a, b in zip(reference, measured, strict=True)),
        bound=BOUNDS[precision],
    )
    if not parity.holds:
        raise ParityError(
            "the exported graph differs from the PyTorch network, relative to the largest output: logits by "
            f"{parity.logits:.2g}, evidence by {parity.evidence:.2g}; {precision} allows {parity.bound:g}"
        )
    return parity


def _in_torch(network: nn.Module, spec: ClipSpec, clips: Sequence[Clip]) -> tuple[NDArray[np.float32], ...]:
    batch = _batch(spec, clips)
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(batch[item.name])) for item in spec.inputs))
        return evidence.mean(dim=1).numpy(), evidence.numpy()


def _batch(spec: ClipSpec, clips: Sequence[Clip]) -> dict[str, NDArray[np.uint8]]:
    return {item.name: np.stack([clip[item.name] for clip in clips]) for item in spec.inputs}


def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _difference(
    reference: Sequence[tuple[NDArray[np.float32], ...]],
    measured: Sequence[tuple[NDArray[np.float32], ...]],
    index: int,
) -> float:
    """Over all clips; NaN where either side is not finite, which no bound holds."""
    wanted = np.concatenate([outputs[index] for outputs in reference]).astype(np.float64)
    found = np.concatenate([outputs[index] for outputs in measured]).astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        return float("nan")
    largest = float(np.abs(wanted).max())
    return float(np.abs(wanted - found).max()) / (largest or 1.0)

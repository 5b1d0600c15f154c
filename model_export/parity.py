"""Proof of an exported graph: onnxruntime and PyTorch on the same clips, compared within a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.accuracy_gate import Accuracy
from model_export.calibration import Clip
from model_export.graph import OUTPUTS
from model_export.networks.pixels import normalise
from model_export.precision import BOUNDS, Bounds, Precision
from service.clip.probe import probe_clips
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

BATCHES = (1, 3)  # 3 differs from the exporter's example batch of 2 and from every power of 2
CLIPS = sum(BATCHES)
ERRORS_ONLY = 3

Outputs = tuple[NDArray[np.float32], ...]
"""Logits (N, C) and evidence (N, T', C)."""


class ParityError(BlvnetError):
    """A graph that does not compute what the PyTorch network does."""


@dataclass(frozen=True)
class Parity:
    """Largest differences found, each relative to the largest magnitude of that output.

    `source` says what the clips were; `top1` in how many of them both sides have the same best label;
    `accuracy` what rounding costs, where that was judged.
    """

    source: str
    clips: int
    logits: float
    evidence: float
    top1: int
    bounds: Bounds
    accuracy: Accuracy | None = None

    @property
    def holds(self) -> bool:
        """Whether both differences are within their bounds; not if any output was not a number."""
        return self.logits <= self.bounds.logits and self.evidence <= self.bounds.evidence

    def judged(self, accuracy: Accuracy) -> Parity:
        """This, with what rounding costs."""
        return replace(self, accuracy=accuracy)

    def to_json(self) -> dict[str, Any]:
        """The `parity` object of the manifest."""
        return {
            "bound": self.bounds.logits,
            "evidence_bound": self.bounds.evidence,
            "logits": float(f"{self.logits:.3g}"),
            "evidence": float(f"{self.evidence:.3g}"),
            "same_top1": self.top1,
            "clips": self.clips,
            "clip_source": self.source,
            "batches": list(BATCHES),
            **({} if self.accuracy is None else {"accuracy": self.accuracy.to_json()}),
        }


def answers(network: nn.Module, spec: ClipSpec, clips: Sequence[Clip]) -> list[Outputs]:
    """What the network answers to each clip by itself."""
    return [_in_torch(network, spec, _batch(spec, [clip])) for clip in clips]


def prove(
    reference: Sequence[Outputs],
    graph: Path,
    spec: ClipSpec,
    clips: Sequence[Clip],
    source: str,
    precision: Precision,
) -> Parity:
    """Compare a graph with the network's `answers` on the same `CLIPS` clips, in batches of `BATCHES`.

    Raises:
        ParityError: they differ by more than the precision's bound.
    """
    assert len(reference) == len(clips) == CLIPS
    session = open_graph(graph)
    measured: list[Outputs] = []
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
        bounds=BOUNDS[precision],
    )
    if not parity.holds:
        raise ParityError(
            "the exported graph differs from the PyTorch network, relative to the largest output: logits by "
            f"{parity.logits:.2g}, evidence by {parity.evidence:.2g}; {precision} allows {parity.bounds}"
        )
    return parity


def probe_logits(network: nn.Module, spec: ClipSpec) -> NDArray[np.float32]:
    """(count, C): what the network answers to the probe clips, which a server asks again when it loads."""
    logits, _ = _in_torch(network, spec, probe_clips(spec))
    return logits


def _in_torch(network: nn.Module, spec: ClipSpec, batch: Mapping[str, NDArray[np.uint8]]) -> Outputs:
    """Logits and evidence of a batch."""
    with torch.inference_mode():
        evidence = network(*(normalise(torch.from_numpy(batch[item.name])) for item in spec.inputs))
        return evidence.mean(dim=1).numpy(), evidence.numpy()


def _batch(spec: ClipSpec, clips: Sequence[Clip]) -> dict[str, NDArray[np.uint8]]:
    return {item.name: np.stack([clip[item.name] for clip in clips]) for item in spec.inputs}


def open_graph(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A graph in onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _difference(
    reference: Sequence[Outputs],
    measured: Sequence[Outputs],
    index: int,
) -> float:
    """Over all clips; NaN where either side is not finite, which no bound holds."""
    wanted = np.concatenate([outputs[index] for outputs in reference]).astype(np.float64)
    found = np.concatenate([outputs[index] for outputs in measured]).astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        return float("nan")
    largest = float(np.abs(wanted).max())
    return float(np.abs(wanted - found).max()) / (largest or 1.0)

"""Parity of the exported graphs: onnxruntime and PyTorch on the same clips, compared within a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from model_export.export.calibration import Clip
from model_export.export.onnx_graph import OUTPUTS
from model_export.export.precision import BOUNDS, Bounds, Precision
from model_export.networks.normalise import normalise
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

BATCHES = (1, 3)  # 3 differs from the batch that the export traces with and from every power of 2
CLIPS = sum(BATCHES)
ERRORS_ONLY = 3

Outputs = tuple[NDArray[np.float32], ...]
"""Logits (N, C), evidence (N, T', C) and features (N, T', F)."""


class ParityError(BlvnetError):
    """A graph that does not compute what the PyTorch network does."""


@dataclass(frozen=True)
class Parity:
    """Largest differences of a graph's outputs, each relative to the largest magnitude of that output.

    Attributes:
        source: description of the clips.
        clips: number of clips.
        logits: difference of the logits.
        evidence: difference of the evidence.
        features: difference of the features.
        top1: clips with the same best label on both sides.
        bounds: the largest differences allowed.
    """

    source: str
    clips: int
    logits: float
    evidence: float
    features: float
    top1: int
    bounds: Bounds

    @property
    def holds(self) -> bool:
        """Whether all differences are within their bounds; NaN never is."""
        moments = self.evidence <= self.bounds.moments and self.features <= self.bounds.moments
        return self.logits <= self.bounds.logits and moments

    def to_json(self) -> dict[str, Any]:
        """The object `parity` of the manifest."""
        return {
            "bound": self.bounds.logits,
            "evidence_bound": self.bounds.moments,
            "features_bound": self.bounds.moments,
            "logits": float(f"{self.logits:.3g}"),
            "evidence": float(f"{self.evidence:.3g}"),
            "features": float(f"{self.features:.3g}"),
            "same_top1": self.top1,
            "clips": self.clips,
            "clip_source": self.source,
            "batches": list(BATCHES),
        }


def check_parity(
    network: VideoClassifier,
    graphs: Sequence[Path],
    spec: ClipSpec,
    clips: Sequence[Clip],
    source: str,
    precision: Precision,
) -> dict[str, Parity]:
    """Compare graphs with the network on `CLIPS` clips, in batches of `BATCHES`; keyed by file name.

    Raises:
        ParityError: a graph differs by more than the precision's bound.
    """
    assert len(clips) == CLIPS

    def batch(start: int, size: int) -> dict[str, NDArray[np.uint8]]:
        return {
            item.name: np.stack([clip[item.name] for clip in clips[start:][:size]]) for item in spec.inputs
        }

    starts = np.cumsum((0, *BATCHES[:-1])).tolist()
    batches = [batch(start, size) for start, size in zip(starts, BATCHES, strict=True)]
    expected = _joined([run_network(network, spec, batch(index, 1)) for index in range(CLIPS)])
    parities = {}
    for graph in graphs:
        session = open_graph(graph)
        measured = _joined([session.run(list(OUTPUTS), inputs) for inputs in batches])
        logits, evidence, features = map(_difference, expected, measured)
        parity = Parity(
            source=source,
            clips=len(clips),
            logits=logits,
            evidence=evidence,
            features=features,
            top1=int((expected[0].argmax(axis=1) == measured[0].argmax(axis=1)).sum()),
            bounds=BOUNDS[precision],
        )
        if not parity.holds:
            raise ParityError(
                f"{graph.name} differs from the PyTorch network, relative to the largest output: logits by "
                f"{logits:.2g}, evidence by {evidence:.2g}, features by {features:.2g}; {precision} allows "
                f"{parity.bounds.logits:g}, {parity.bounds.moments:g} and {parity.bounds.moments:g}"
            )
        parities[graph.name] = parity
    return parities


def run_network(network: VideoClassifier, spec: ClipSpec, batch: Mapping[str, NDArray[np.uint8]]) -> Outputs:
    """The PyTorch network's outputs for a batch of uint8 inputs (N, T_b, size, size, 3)."""
    with torch.inference_mode():
        features = network.features(*(normalise(torch.from_numpy(batch[item.name])) for item in spec.inputs))
        evidence = network.fc(features)
        return evidence.mean(dim=1).numpy(), evidence.numpy(), features.numpy()


def open_graph(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A graph in onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _joined(batches: Sequence[Outputs]) -> Outputs:
    """The outputs of several batches, concatenated."""
    return tuple(np.concatenate(output) for output in zip(*batches, strict=True))


def _difference(expected: NDArray[np.float32], measured: NDArray[np.float32]) -> float:
    """Largest difference relative to the largest expected magnitude; NaN if a value is not finite."""
    if not (np.isfinite(expected).all() and np.isfinite(measured).all()):
        return float("nan")
    largest = float(np.abs(expected).max())
    return float(np.abs(expected.astype(np.float64) - measured).max()) / (largest or 1.0)

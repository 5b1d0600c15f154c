"""What is asked of a clip, and what comes of it: the query, the answer, and how outputs are scored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from service.clip.geometry import CROP_COUNTS
from service.clip.video import VideoInfo
from service.errors import InvalidParameter
from service.manifest import Manifest
from service.packages import Model
from service.pipeline import scoring
from service.pipeline.batcher import Inference
from service.runtime.session import Outputs
from service.workers.decode_pool import Decoded

MAX_TOP_K = 100
MAX_CLIPS = 10


@dataclass(frozen=True)
class Query:
    """What is asked of a clip. `clips` samplings in time and `crops` of each are averaged; see `scoring`."""

    model: str | None = None
    top_k: int = 5
    clips: int = 1
    crops: int = 1
    evidence: bool = False

    @property
    def views(self) -> int:
        """Clips that the network sees."""
        return self.clips * self.crops

    def check(self) -> None:
        """Raise `InvalidParameter` for a value that is out of range."""
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidParameter(f"top_k must be from 1 to {MAX_TOP_K}, it is {self.top_k}.")
        if not 1 <= self.clips <= MAX_CLIPS:
            raise InvalidParameter(f"clips must be from 1 to {MAX_CLIPS}, it is {self.clips}.")
        if self.crops not in CROP_COUNTS:
            allowed = ", ".join(map(str, CROP_COUNTS))
            raise InvalidParameter(f"crops must be one of {allowed}, it is {self.crops}.")


@dataclass(frozen=True)
class Prediction:
    """A label, its index among the model's, and its probability."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Evidence:
    """Probabilities over time: a row for each moment, in it the labels in the order of the predictions."""

    timestamps_s: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Timings:
    """How long each stage took. `queue_ms` is all the waiting: for a decode worker, then for a batch."""

    decode_ms: float
    queue_ms: float
    inference_ms: float


@dataclass(frozen=True)
class Recognition:
    """The answer. `indices` and `timestamps_s` are those of the frames taken, temporal clip by clip."""

    manifest: Manifest
    provider: str
    predictions: tuple[Prediction, ...]
    video: VideoInfo
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    evidence: Evidence | None
    timing: Timings


@dataclass(frozen=True)
class Inferred:
    """What came out of the graph, not scored: a row for each clip that went in."""

    manifest: Manifest
    outputs: Outputs
    timing: Timings

    def stages_ms(self) -> dict[str, float]:
        """The stages by name."""
        return {
            "decode": self.timing.decode_ms,
            "queue": self.timing.queue_ms,
            "inference": self.timing.inference_ms,
        }


def answer(query: Query, model: Model, decoded: Decoded, inference: Inference) -> Recognition:
    """Score what came out of the graph."""
    ranked = scoring.rank(inference.outputs.logits, query.top_k)
    evidence = None
    if query.evidence:
        moments = inference.outputs.evidence.shape[1]
        scores = scoring.evidence_scores(inference.outputs.evidence, query.clips, ranked.indices)
        times = scoring.moment_times(np.array(decoded.timestamps_s), moments)
        evidence = Evidence(tuple(times.tolist()), tuple(map(tuple, scores.tolist())))
    return Recognition(
        manifest=model.manifest,
        provider=model.session.runtime.provider,
        predictions=predictions(model.manifest, ranked),
        video=decoded.video,
        indices=tuple(chain.from_iterable(decoded.indices)),
        timestamps_s=tuple(chain.from_iterable(decoded.timestamps_s)),
        evidence=evidence,
        timing=timings(decoded, inference),
    )


def predictions(manifest: Manifest, ranked: scoring.Ranked) -> tuple[Prediction, ...]:
    """The best classes with their labels, in their order."""
    return tuple(
        Prediction(manifest.labels[index], index, score)
        for index, score in zip(ranked.indices.tolist(), ranked.scores.tolist(), strict=True)
    )


def timings(decoded: Decoded | None, inference: Inference) -> Timings:
    """How long the stages took; None for tensors, which need no decoding."""
    return Timings(
        decode_ms=0.0 if decoded is None else decoded.decode_ms,
        queue_ms=inference.queue_ms + (0.0 if decoded is None else decoded.queue_ms),
        inference_ms=inference.inference_ms,
    )

"""The classification of a video: its query and its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.clip.geometry import CROP_COUNTS
from service.clip.video import VideoInfo
from service.engines.session import Outputs
from service.errors import InvalidParameter
from service.models.loading import Model
from service.packages.manifest import Manifest, Scores
from service.pipeline import scoring
from service.pipeline.batching.batcher import Inference
from service.pipeline.frame_images import FrameImage, frame_images
from service.workers.decode_pool import Decoded

MAX_TOP_K = 100
MAX_CLIPS = 10
S_DIGITS = 6


@dataclass(frozen=True)
class Query:
    """The query for a video; the result averages `clips` temporal clips and `crops` crops of each clip."""

    model: str | None = None
    top_k: int = 5
    clips: int = 1
    crops: int = 1
    evidence: bool = False
    frames: bool = False

    @property
    def views(self) -> int:
        """Number of rows that the network runs."""
        return self.clips * self.crops

    def check(self, manifest: Manifest | None = None) -> None:
        """Raise `InvalidParameter` for a value that is out of range, or that the model does not support.

        Views may only be mirrored if the model's label symmetry is known.
        """
        check_top_k(self.top_k)
        if not 1 <= self.clips <= MAX_CLIPS:
            raise InvalidParameter(f"clips must be from 1 to {MAX_CLIPS}, it is {self.clips}.")
        if self.crops not in CROP_COUNTS:
            allowed = ", ".join(map(str, CROP_COUNTS))
            raise InvalidParameter(f"crops must be one of {allowed}, it is {self.crops}.")
        if manifest is not None and manifest.mirror is None and scoring.MIRRORED[self.crops].any():
            raise InvalidParameter(
                f"crops={self.crops} averages over mirrored views, but the package of {manifest.name} does"
                " not say which label each label becomes in a mirrored clip; use fewer crops."
            )


def check_top_k(top_k: int) -> None:
    """Raise `InvalidParameter` for a number of labels that is out of range."""
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidParameter(f"top_k must be from 1 to {MAX_TOP_K}, it is {top_k}.")


@dataclass(frozen=True)
class Prediction:
    """A label, its index in the model's labels, and its probability."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Evidence:
    """The evidence of each moment: a row per moment, with columns in the order of the predictions.

    Attributes:
        timestamps_s: Times of the moments in seconds.
        scores: The scores of each moment alone. Their mean is not the score of the video, which is the
            softmax (or sigmoid) of the mean: one strong moment can outweigh many weak ones.
        margins: The lead of each label over `runner_up` at each moment, as a difference of logits; negative
            if the label is behind. The mean over the moments is `ln(score / runner_up.score)`. For a model
            with sigmoid scores the margins are the logits, whose mean is `ln(score / (1 - score))`.
        runner_up: The second best label of the video. None if the model has one label (the margins are then
            0) or if its scores are sigmoids.
    """

    timestamps_s: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    margins: tuple[tuple[float, ...], ...]
    runner_up: Prediction | None


@dataclass(frozen=True)
class Sampled:
    """The frames that the network saw, clip by clip: their numbers in the video, and their times."""

    frames: tuple[int, ...]
    timestamps_s: tuple[float, ...]

    @classmethod
    def of(cls, frames: Iterable[int], timestamps_s: Iterable[float]) -> Sampled:
        """Round the times to microseconds: time bases of containers are no more precise."""
        return cls(tuple(frames), tuple([round(time_s, S_DIGITS) for time_s in timestamps_s]))


@dataclass(frozen=True)
class Timings:
    """Duration of each stage. `queue_ms` includes the waits for a decode worker and for a batch."""

    decode_ms: float
    queue_ms: float
    inference_ms: float

    @classmethod
    def of(cls, decoded: Decoded | None, inference: Inference) -> Timings:
        """Add up the stages; `decoded` is None if the request brought tensors."""
        return cls(
            decode_ms=0.0 if decoded is None else decoded.decode_ms,
            queue_ms=inference.queue_ms + (0.0 if decoded is None else decoded.queue_ms),
            inference_ms=inference.inference_ms,
        )

    def stages_ms(self) -> dict[str, float]:
        """The stages by name, for the metrics and the `Server-Timing` header."""
        return {"decode": self.decode_ms, "queue": self.queue_ms, "inference": self.inference_ms}


@dataclass(frozen=True)
class Classification:
    """The labels of a video, and the data that they are based on.

    `unsure` says whether the best score is below the threshold of a taught model; None if there is none.
    """

    manifest: Manifest
    provider: str
    predictions: tuple[Prediction, ...]
    unsure: bool | None
    video: VideoInfo
    sampled: Sampled
    evidence: Evidence | None
    timing: Timings
    frames: tuple[FrameImage, ...] | None = None


@dataclass(frozen=True)
class Inferred:
    """The outputs of the graph, one row per view, without scores."""

    manifest: Manifest
    outputs: Outputs
    timing: Timings


def classify(query: Query, model: Model, decoded: Decoded, inference: Inference) -> Classification:
    """Score the outputs for one video."""
    outputs = scoring.unmirror(inference.outputs, query.crops, model.manifest.mirror)
    best = predictions(model, outputs.logits, query.top_k)
    evidence = None
    if query.evidence:
        indices = np.array([prediction.index for prediction in best])
        kind = model.manifest.scores
        leading = predictions(model, outputs.logits, 2)
        rival = None if kind is Scores.SIGMOID else leading[-1].index
        calibrated = outputs.evidence / model.temperature
        scores = scoring.evidence_scores(calibrated, query.clips, indices, kind)
        margins = scoring.margins(calibrated, query.clips, indices, rival)
        times = scoring.moment_times(np.array(decoded.timestamps_s), outputs.evidence.shape[1])
        evidence = Evidence(
            timestamps_s=tuple(times.round(S_DIGITS).tolist()),
            scores=tuple(map(tuple, scores.tolist())),
            margins=tuple(map(tuple, margins.tolist())),
            runner_up=leading[1] if rival is not None and len(leading) > 1 else None,
        )
    return Classification(
        manifest=model.manifest,
        provider=model.session.runtime.provider,
        predictions=best,
        unsure=is_unsure(model, best),
        video=decoded.video,
        sampled=Sampled.of(chain.from_iterable(decoded.indices), chain.from_iterable(decoded.timestamps_s)),
        evidence=evidence,
        timing=Timings.of(decoded, inference),
        frames=frame_images(model.manifest.clip, decoded, query.crops) if query.frames else None,
    )


def predictions(model: Model, logits: NDArray[np.floating], top_k: int) -> tuple[Prediction, ...]:
    """Return the best labels for logits `(V, C)`, averaged over the views, best first."""
    best = scoring.rank(logits / model.temperature, top_k, model.manifest.scores)
    labels = model.manifest.labels
    pairs = zip(best.indices.tolist(), best.scores.tolist(), strict=True)
    return tuple([Prediction(labels[index], index, score) for index, score in pairs])


def is_unsure(model: Model, best: Sequence[Prediction]) -> bool | None:
    """Return whether the best score is below a taught model's threshold; None if the model has none."""
    threshold = model.manifest.threshold
    return None if threshold is None else best[0].score < threshold

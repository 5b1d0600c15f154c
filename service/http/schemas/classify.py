"""Query and answer of `/v1/classify`; `blvnet classify --json` prints the answer too."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from service.clip.geometry import CROP_COUNTS
from service.clip.video import VideoInfo
from service.http.schemas.common import UNSURE, ModelRef, RecognitionParameters, TimingMs, is_none
from service.pipeline.classification import (
    MAX_CLIPS,
    MAX_TOP_K,
    Classification,
    Evidence,
    Prediction,
    Sampled,
)
from service.pipeline.frame_images import FrameImage

EXAMPLE: dict[str, JsonValue] = {
    "model": {"name": "blvnet-tam-mini", "version": 4},
    "predictions": [
        {"label": "Moving something from left to right", "index": 4, "score": 0.97},
        {"label": "Moving something up", "index": 7, "score": 0.02},
    ],
    "video": {
        "container": "mp4",
        "codec": "h264",
        "width": 320,
        "height": 240,
        "rotation": 0,
        "frames": 48,
        "fps": 12.0,
        "duration_s": 4.0,
        "broken_packets": 0,
        "timestamps": "exact",
        "track": 0,
    },
    "sampled": {"frames": [6, 18, 30, 42], "timestamps_s": [0.5, 1.5, 2.5, 3.5]},
    "evidence": {
        "timestamps_s": [1.0, 3.0],
        "scores": [[0.91, 0.06], [0.99, 0.01]],
        "margins": [[2.72, 0.0], [5.04, 0.0]],
        "runner_up": {"label": "Moving something up", "index": 7, "score": 0.02},
    },
    "frames": None,
    "timing_ms": {"receive": 1.2, "decode": 14.8, "queue": 0.1, "inference": 21.5, "total": 38.2},
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "cpu",
    "cached": False,
    "request_id": "6f1f9f0c2f8e4b0f9c59ad0c9bfa0a3c",
}


def _check_crops(value: int) -> int:
    if value not in CROP_COUNTS:
        raise ValueError(f"should be one of {', '.join(map(str, CROP_COUNTS))}")
    return value


class ClassifyParameters(RecognitionParameters):
    """Query parameters of `/v1/classify`."""

    top_k: int = Field(
        default=5, ge=1, le=MAX_TOP_K, description="Number of labels in the answer, best first."
    )
    clips: int = Field(
        default=1,
        ge=1,
        le=MAX_CLIPS,
        description="Number of clips sampled from the video; their scores are averaged.",
    )
    crops: Annotated[int, AfterValidator(_check_crops)] = Field(
        default=1,
        json_schema_extra={"enum": list(CROP_COUNTS)},
        description="Crops of each frame; their scores are averaged. 1: centre; 3: along the longer side; "
        "5: corners and centre; 10: those five and their mirror images.",
    )
    evidence: bool = Field(
        default=False,
        description="Include what each moment says: how far each label is ahead of the runner-up, and the "
        "scores of the moment alone.",
    )
    frames: bool = Field(
        default=False,
        description="Include the frames that the network saw, as JPEG images: the centre crop, at most 64.",
    )


class ClassifyAnswer(BaseModel):
    """Labels of a video."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    model: ModelRef
    predictions: tuple[Prediction, ...] = Field(
        description="Best first. Scores are probabilities. Those of all labels add up to 1, unless the "
        "model's `scores` are `sigmoid`: then each is the probability of that label alone."
    )
    unsure: bool | None = Field(default=None, exclude_if=is_none, description=UNSURE)
    video: VideoInfo
    sampled: Sampled
    evidence: Evidence | None = Field(
        description="With `evidence=true`: what each moment says, a row per moment with columns in the order "
        "of `predictions`. `margins` are differences of logits to `runner_up`, the second best label of the "
        "video; their mean over the moments is `ln(score / runner_up.score)`. `scores` are the softmax of "
        "each moment alone; a score of the video is not their mean but the softmax of the mean logits. With "
        "a model whose `scores` are `sigmoid`, `runner_up` is null, `margins` are the logits of each label, "
        "with the mean `ln(score / (1 - score))`, and `scores` their sigmoid."
    )
    frames: tuple[FrameImage, ...] | None = Field(
        default=None,
        description="With `frames=true`: the frames that the network saw, in the order of time. `image` is a "
        "JPEG as a `data:` URL, at most 256 pixels wide; `size` is the side that the network took.",
    )
    timing_ms: TimingMs
    sha256: str = Field(description="SHA-256 of the model's graph, as in its package and in `/v1/models`.")
    provider: str = Field(description="Where inference ran: `cpu`, `cuda`, `tensorrt` or `openvino`.")
    cached: bool = Field(
        default=False,
        description="Whether the answer was computed for another request with the same file, model and "
        "parameters.",
    )
    request_id: str

    @classmethod
    def of(
        cls,
        classification: Classification,
        *,
        receive_ms: float = 0.0,
        total_ms: float | None = None,
        request_id: str = "",
    ) -> Self:
        """The answer for a result of the pipeline; without a server it has neither upload nor request id."""
        return cls(
            model=ModelRef(name=classification.manifest.name, version=classification.manifest.version),
            predictions=classification.predictions,
            unsure=classification.unsure,
            video=classification.video,
            sampled=classification.sampled,
            evidence=classification.evidence,
            frames=classification.frames,
            timing_ms=TimingMs.of(classification.timing, receive_ms=receive_ms, total_ms=total_ms),
            sha256=classification.manifest.sha256,
            provider=classification.provider,
            request_id=request_id,
        )

"""The job of every peer: decode with PyAV, scale, run onnxruntime, return the best labels.

`RACE_PACKAGE` is the folder of the package; `RACE_THREADS` is the number of threads per run, or empty for
onnxruntime's default.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.uint8]]

TOP = 5
FRAME_SLICES = {"even": (0, 2), "odd": (1, 2), "all": (0, 1)}  # first sampled frame and step


class Decoder:
    """Decodes videos to the inputs of the graph."""

    def __init__(self, package: Path | None = None) -> None:
        package = package or Path(os.environ["RACE_PACKAGE"])
        self.manifest: dict[str, Any] = json.loads((package / "model.json").read_text(encoding="utf-8"))

    def __call__(self, clip: bytes) -> Inputs:
        """Sample an encoded video; returns uint8 `(1, T_branch, size, size, 3)` for each input."""
        with av.open(io.BytesIO(clip), "r") as container:
            stream = container.streams.video[0]
            indices = self._indices(stream.frames)
            decoded: dict[int, av.VideoFrame] = {}
            for index, frame in enumerate(container.decode(stream)):
                if index in indices:
                    decoded[index] = frame
                if index == indices[-1]:
                    break
        return {item["name"]: self._input(item, indices, decoded) for item in self.manifest["inputs"]}

    def _indices(self, count: int) -> list[int]:
        """The middle frames of T equal segments."""
        frames = self.manifest["frames"]
        return [count * (2 * k + 1) // (2 * frames) for k in range(frames)]

    def _input(
        self, item: dict[str, Any], indices: list[int], decoded: dict[int, av.VideoFrame]
    ) -> NDArray[np.uint8]:
        first, step = FRAME_SLICES[item["frames"]]
        chosen = indices[first::step]
        return np.stack([_picture(decoded[index], item["scale"], item["size"]) for index in chosen])[None]


class Network:
    """Runs the package's graph in onnxruntime."""

    def __init__(self, package: Path | None = None) -> None:
        package = package or Path(os.environ["RACE_PACKAGE"])
        manifest = json.loads((package / "model.json").read_text(encoding="utf-8"))
        self.labels: list[str] = manifest["labels"]
        options = onnxruntime.SessionOptions()
        if threads := os.environ.get("RACE_THREADS"):
            options.intra_op_num_threads = int(threads)
        self.session = onnxruntime.InferenceSession(
            package / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Inputs) -> dict[str, Any]:
        """Classify a clip."""
        logits = self.session.run(["logits"], inputs)[0][0]
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        best = np.argsort(-scores)[:TOP]
        return {
            "predictions": [
                {"label": self.labels[index], "index": int(index), "score": float(scores[index])}
                for index in best
            ]
        }


def _picture(frame: av.VideoFrame, scale: int, size: int) -> NDArray[np.uint8]:
    """Scale the shorter side to `scale` and crop the centre; returns RGB `(size, size, 3)`."""
    if frame.width <= frame.height:
        width, height = scale, scale * frame.height // frame.width
    else:
        width, height = scale * frame.width // frame.height, scale
    picture = frame.to_ndarray(format="rgb24", width=width, height=height)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(picture[top : top + size, left : left + size], np.uint8)

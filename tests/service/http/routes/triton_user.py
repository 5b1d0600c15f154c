"""A user of the real `tritonclient`, in a separate process, which its dependency gevent changes.

    python -m tests.service.http.routes.triton_user HOST:PORT CLIP

Writes the answers as one JSON document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException

MODEL = "tiny"


def main(address: str, clip: Path) -> dict[str, Any]:
    """Make each request once."""
    with http.InferenceServerClient(address) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(MODEL),
            "other_ready": client.is_model_ready("nonesuch"),
            "server": client.get_server_metadata(),
            "model": client.get_model_metadata(MODEL, "1"),
            "tensors": {
                f"{binary_in}-{binary_out}": tensors(client, binary_in=binary_in, binary_out=binary_out)
                for binary_in in (False, True)
                for binary_out in (False, True)
            },
            "clip": clip_logits(client, clip.read_bytes()),
            "labels": labels(client, clip.read_bytes()),
            "error": error(client),
            "compressed": [compressed(client, algorithm) for algorithm in ("gzip", "deflate")],
            "config": client.get_model_config(MODEL),
            "statistics": client.get_inference_statistics(MODEL),
            "all_statistics": client.get_inference_statistics(),
        }


def tensors(client: Any, *, binary_in: bool, binary_out: bool) -> Any:
    """Two clips as tensors, blue and then red: logits and evidence."""
    inputs = []
    for name, size in (("little", 32), ("big", 16)):
        pixels = np.zeros((2, 4, size, size, 3), np.uint8)
        pixels[0, ..., 2] = pixels[1, ..., 0] = 255
        item = http.InferInput(name, pixels.shape, "UINT8")
        item.set_data_from_numpy(pixels, binary_data=binary_in)
        inputs.append(item)
    outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("evidence", "logits")]
    result = client.infer(MODEL, inputs, outputs=outputs, request_id="seven")
    return {
        "id": result.get_response()["id"],
        "logits": result.as_numpy("logits").tolist(),
        "evidence_shape": result.as_numpy("evidence").shape,
    }


def compressed(client: Any, algorithm: str) -> Any:
    """Logits of a red clip as tensors in a compressed body."""
    inputs = []
    for name, size in (("little", 32), ("big", 16)):
        pixels = np.zeros((1, 4, size, size, 3), np.uint8)
        pixels[..., 0] = 255
        item = http.InferInput(name, pixels.shape, "UINT8")
        item.set_data_from_numpy(pixels)
        inputs.append(item)
    return client.infer(MODEL, inputs, request_compression_algorithm=algorithm).as_numpy("logits").tolist()


def encoded(clip: bytes) -> Any:
    """An encoded clip as an input."""
    item = http.InferInput("clip", [1], "BYTES")
    item.set_data_from_numpy(np.array([clip], dtype=np.object_))
    return item


def clip_logits(client: Any, clip: bytes) -> Any:
    """Logits of an encoded clip; all outputs, because none is requested."""
    return client.infer(MODEL, [encoded(clip)]).as_numpy("logits").tolist()


def labels(client: Any, clip: bytes) -> list[str]:
    """The two best labels of an encoded clip."""
    wanted = http.InferRequestedOutput("logits", class_count=2)
    result = client.infer(MODEL, [encoded(clip)], outputs=[wanted])
    return [text.decode() for text in result.as_numpy("logits").ravel()]


def error(client: Any) -> str:
    """The error for a file that is not a video."""
    try:
        client.infer(MODEL, [encoded(b"no video")])
    except InferenceServerException as exc:
        return f"{exc.status()}: {exc.message()}"
    return "no error"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))

"""Plain FastAPI: a sync function, which FastAPI runs in its thread pool.

uvicorn benchmarks.peers.fastapi_app:app
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI

from benchmarks.peers.job import Decoder, Network

app = FastAPI()
decode, network = Decoder(), Network()


@app.post("/classify")
def classify(clip: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, Any]:
    """The best labels of a clip."""
    return network(decode(clip))


@app.get("/health")
def health() -> str:
    """Somebody is there."""
    return "ok"

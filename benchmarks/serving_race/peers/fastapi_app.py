"""Plain FastAPI with a sync function, which runs in its thread pool.

uvicorn benchmarks.serving_race.peers.fastapi_app:app
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI

from benchmarks.serving_race.peers.job import Decoder, Network

app = FastAPI()
decode, network = Decoder(), Network()


@app.post("/classify")
def classify(clip: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, Any]:
    """Return the best labels of a clip."""
    return network(decode(clip))


@app.get("/health")
def health() -> str:
    """Report readiness."""
    return "ok"

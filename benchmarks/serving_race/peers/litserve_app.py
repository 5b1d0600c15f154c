"""LitServe with two worker processes.

python -m benchmarks.serving_race.peers.litserve_app PORT
"""

# No `from __future__ import annotations`: LitServe evaluates the annotations itself.

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.serving_race.peers.job import Decoder, Inputs, Network

WORKERS = 2


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # it has no types if it is not installed
    """Classifies clips."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the name is LitServe's
        """Load the network in each worker."""
        self.decoder, self.network = Decoder(), Network()

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> Inputs:
        """Decode the clip."""
        return self.decoder(request)

    def predict(self, x: Inputs) -> dict[str, Any]:
        """Run the network."""
        return self.network(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return the result, which is JSON already."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")

"""mosec with one decoding and two inference processes.

python -m benchmarks.serving_race.peers.mosec_app --port PORT
"""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.serving_race.peers.job import Decoder, Inputs, Network

WORKERS = 2


class Decode(Worker):  # type: ignore[misc]  # it has no types if it is not installed
    """Decodes clips."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()

    def deserialize(self, data: bytes) -> bytes:
        """Return the body, which is the encoded video."""
        return data

    def forward(self, data: bytes) -> Inputs:
        """Decode the clip."""
        return self.decoder(data)


class NetworkWorker(Worker):  # type: ignore[misc]
    """Runs the network; mosec encodes the result as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, data: Inputs) -> dict[str, Any]:
        """Run the network."""
        return self.network(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(NetworkWorker, num=WORKERS)
    server.run()

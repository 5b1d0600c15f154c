"""mosec: a pipeline of one decoding and two inference processes.

python -m benchmarks.peers.mosec_app --port PORT
"""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.job import Decoder, Inputs, Network

WORKERS = 2


class Decode(Worker):  # type: ignore[misc]  # it has no types where it is not installed
    """Clip to inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()

    def deserialize(self, data: bytes) -> bytes:
        """The body is the clip."""
        return data

    def forward(self, data: bytes) -> Inputs:
        """Decode the clip."""
        return self.decoder(data)


class Inference(Worker):  # type: ignore[misc]
    """Inputs to labels, which mosec writes as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, data: Inputs) -> dict[str, Any]:
        """Run the network."""
        return self.network(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(Inference, num=WORKERS)
    server.run()

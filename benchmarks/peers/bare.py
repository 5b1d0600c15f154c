"""The job in a loop, without a server: what HTTP and queues cost is above this.

    python -m benchmarks.peers.bare CLIP...

Says `ready` once loaded and warm; then for each line `SECONDS` of its standard input works as long, and
answers with a JSON list of the seconds that each clip took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.job import Decoder, Network


def work(decode: Decoder, network: Network, clips: Sequence[bytes], seconds: float) -> list[float]:
    """Clips in turn until the time is over; how long each took."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        network(decode(clips[len(took) % len(clips)]))
        took.append(time.monotonic() - began)
    return took


if __name__ == "__main__":
    loaded = Decoder(), Network()
    files = [Path(name).read_bytes() for name in sys.argv[1:]]
    work(*loaded, files, 0.5)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(work(*loaded, files, float(line))), flush=True)

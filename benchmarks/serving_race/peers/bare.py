"""The job in a loop without a server, as the floor of the comparison.

    python -m benchmarks.serving_race.peers.bare CLIP...

Prints `ready` when it is loaded and warmed up. For each line `SECONDS` on standard input it works for that
long and prints a JSON list of the duration of each clip in seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving_race.peers.job import Decoder, Network


def work(decode: Decoder, network: Network, clips: Sequence[bytes], seconds: float) -> list[float]:
    """Classify clips in turn for `seconds`; return the duration of each in seconds."""
    durations_s: list[float] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        network(decode(clips[len(durations_s) % len(clips)]))
        durations_s.append(time.monotonic() - began)
    return durations_s


if __name__ == "__main__":
    loaded = Decoder(), Network()
    files = [Path(name).read_bytes() for name in sys.argv[1:]]
    work(*loaded, files, 0.5)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(work(*loaded, files, float(line))), flush=True)

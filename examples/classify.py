"""Label clips with a running service.

python examples/classify.py 127.0.0.1:8000 examples/clip.mp4 ...
"""

from __future__ import annotations

import sys

from blvnet_client import BlvnetClientError, Client, VideoError


def main(server: str, *clips: str) -> int:
    """Print the best label of each clip, or what is wrong with it; return the exit status."""
    failed = 0
    with Client(server) as client:
        for clip in clips:
            try:
                result = client.classify(clip, top_k=1)
            except VideoError as error:  # only this video cannot be read
                print(f"{clip}: {error.code}: {error.message}")
                failed += 1
            else:
                print(f"{clip}: {result.best.label} ({result.best.score:.0%})")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except BlvnetClientError as error:  # an unreachable service, a missing file, a wrong key
        sys.exit(str(error))

"""Label clips with a running service: python examples/classify.py http://127.0.0.1:8000 clip.mp4 ..."""

import sys
from pathlib import Path

import httpx


def main(server: str, *clips: str) -> None:
    """Print the best label of each clip, or what is wrong with it."""
    with httpx.Client(base_url=server, timeout=60) as client:
        for clip in clips:
            with Path(clip).open("rb") as file:
                answer = client.post("/v1/classify", params={"top_k": 1}, files={"file": file})
            document = answer.json()
            if answer.is_success:
                best = document["predictions"][0]
                print(
                    f"{clip}: {best['label']} ({best['score']:.0%}, {document['timing_ms']['total']:.0f} ms)"
                )
            else:
                print(f"{clip}: {document['title']}: {document['detail']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

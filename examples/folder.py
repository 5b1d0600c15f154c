"""Label all videos of a folder, several at a time, and write a CSV file.

python examples/folder.py 127.0.0.1:8000 VIDEOS table.csv

Each row is written as soon as the video is labelled. A second run continues the file. `blvnet classify` and
`blvnet batch` do the same from the command line.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path

from blvnet_client import AsyncClient, BlvnetClientError, RetryPolicy, VideoError

AT_ONCE = 4
SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
COLUMNS = ["video", "label", "score", "problem"]


async def main(server: str, folder: str, table: str) -> None:
    """Label the videos that are not in the table yet."""
    target = Path(table)
    known: set[str] = set()
    if target.exists():
        with target.open(newline="") as file:
            known = {row["video"] for row in csv.DictReader(file)}
    videos = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    left = iter([video for video in videos if str(video) not in known])
    with target.open("a", newline="") as file:
        rows = csv.writer(file)
        if not known:
            rows.writerow(COLUMNS)
        # Requests to a busy or restarting service are retried for up to ten minutes.
        async with AsyncClient(server, retries=RetryPolicy(budget_s=600)) as client:

            async def work() -> None:
                for video in left:  # all workers take from the same iterator
                    try:
                        best = (await client.classify(video, top_k=1)).best
                        rows.writerow([video, best.label, f"{best.score:.4f}", ""])
                    except VideoError as error:
                        rows.writerow([video, "", "", error.message])
                    file.flush()

            async with asyncio.TaskGroup() as workers:
                for _ in range(AT_ONCE):
                    workers.create_task(work())


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except* BlvnetClientError as errors:
        sys.exit(str(errors.exceptions[0]))

"""`blvnet batch` over videos in S3 while its driver and a decode worker are killed.

    python -m benchmarks.batch

A local S3 (moto) holds the videos. The first run is killed after a third of the rows, and a decode worker of
the second run after two thirds. The report has the rows, the highest memory of all processes of a run and the
rate of the second run.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import boto3
import psutil
import typer
from moto.server import ThreadedMotoServer

from benchmarks.common import report

NAME = "batch"
BUCKET = "videos"
CLIP = Path(__file__).parents[1] / "examples" / "clip.mp4"
POLL_S = 0.02


def main(
    videos: Annotated[int, typer.Option(min=10, help="Number of videos.")] = 500,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Classify a bucket with two kills, and count the rows."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise it logs a line for each request
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for number in range(videos):
            client.upload_file(str(CLIP), BUCKET, f"{number:05d}.mp4")
        with tempfile.TemporaryDirectory() as folder:
            document = measure(Path(folder, "rows.jsonl"), videos) | {"machine": report.machine()}
    finally:
        server.stop()
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def measure(rows: Path, videos: int) -> dict[str, Any]:
    """Run the batch twice, with a kill in each run."""
    command = [str(Path(sys.executable).with_name("blvnet")), "batch", f"s3://{BUCKET}", "--out", str(rows)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
        first = watched(driver)
        wait_for(rows, videos // 3)
        driver.kill()
    before = rows.read_bytes().rpartition(b"\n")[0]
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
        second = watched(driver)
        wait_for(rows, 2 * videos // 3)
        children = set(psutil.Process(driver.pid).children())
        workers = set(psutil.Process(driver.pid).children(recursive=True)) - children
        min(workers, key=lambda worker: worker.pid).kill()
        status = driver.wait()
    elapsed_s = time.monotonic() - began
    after = rows.read_bytes()
    clips = [json.loads(line)["clip"] for line in after.splitlines()]
    left = videos - (before.count(b"\n") + bool(before))
    return {
        "videos": videos,
        "status": status,
        "rows": len(clips),
        "distinct": len(set(clips)),
        "errors": sum(json.loads(line)["error"] is not None for line in after.splitlines()),
        "rows_before_the_kill_unchanged": after.startswith(before),
        "memory_mb": max(*first, *second) / 1e6,
        "videos_per_s": left / elapsed_s,
    }


def watched(driver: subprocess.Popen[bytes]) -> list[int]:
    """Memory of all processes of a run, shared pages counted once; a list that grows until the run ends."""
    sizes = [0]

    def watch() -> None:
        while driver.poll() is None:
            try:
                root = psutil.Process(driver.pid)
                family = [root, *root.children(recursive=True)]
                sizes.append(sum(process.memory_full_info().pss for process in family))
            except psutil.Error:  # a process has ended in the meantime
                continue
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    return sizes


def wait_for(rows: Path, number: int) -> None:
    """Wait until the file has this many rows."""
    while not rows.exists() or rows.read_bytes().count(b"\n") < number:
        time.sleep(POLL_S)


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    kept = "unchanged" if document["rows_before_the_kill_unchanged"] else "CHANGED"
    return f"""# Batch over S3 with two kills

`python -m benchmarks.batch`: {document["videos"]} videos in a local S3 (moto). The first run is killed after
a third of the rows, a decode worker of the second run after two thirds.
{report.described_machine(document["machine"])}

{document["rows"]} rows for {document["distinct"]} videos, {document["errors"]} of them with an error.
The rows before the kill are {kept}. Highest memory of all processes of a run: {document["memory_mb"]:.0f} MB.
Rate of the second run, with its start: {document["videos_per_s"]:.1f} videos per second.
"""


if __name__ == "__main__":
    typer.run(main)

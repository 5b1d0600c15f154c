"""A video of several hours, posted to `/v1/timeline` and as a job: memory must not grow with its length.

    python -m benchmarks.long_video

The video is generated: a few seconds are encoded once, and their packets are written again and again. While
each request runs, the memory of all processes of the service is sampled. The exit status is 1 if a result is
incomplete, or if the second half of a run takes notably more memory than the first.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import httpx
import numpy as np
import typer

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.common.processes import sample_pss

NAME = "long_video"
WIDTH, HEIGHT, RATE = 160, 90, 25
LOOP_FRAMES = 250
WINDOW_S = 4.0
HOUR_S = 3600
MAX_GROWTH_MB = 10.0
POLL_S = 0.5


def main(
    hours: Annotated[float, typer.Option(min=0.001, help="Length of the video.")] = 2.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure the memory of a timeline and of a job of a long video."""
    seconds = hours * HOUR_S
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch, "long.mp4")
        write_video(video, seconds)
        settings = {
            "BLVNET_JOBS_DIR": str(Path(scratch, "jobs")),
            "BLVNET_MAX_DURATION_S": str(seconds + 60),
            "BLVNET_MAX_FRAMES": str(int(seconds * RATE) + 1000),
            "BLVNET_MAX_WINDOWS": str(int(seconds / WINDOW_S) + 10),
            "BLVNET_MAX_UPLOAD_MB": "1000",
            "BLVNET_TIMELINE_TIMEOUT_S": "7200",
        }
        with serving.service(environment=settings) as service:
            runs = []
            for name, run in (("timeline", timeline), ("job", job)):
                with sample_pss(service.pid) as samples:
                    facts = run(service.url, video)
                runs.append({"name": name, **facts, **memory(samples)})
        document = {"hours": hours, "bytes": video.stat().st_size, "runs": runs, "machine": report.machine()}
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    expected = round(seconds / WINDOW_S)
    wrong = [run for run in runs if abs(run["windows"] - expected) > 1 or run["growth_mb"] > MAX_GROWTH_MB]
    if wrong:
        raise typer.Exit(1)


def write_video(path: Path, seconds: float) -> None:
    """Write a video that repeats ten seconds of moving noise."""
    packets, parameters = _loop()
    with av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(parameters)
        for number in range(int(seconds * RATE)):
            packet = av.Packet(packets[number % LOOP_FRAMES][0])
            packet.is_keyframe = packets[number % LOOP_FRAMES][1]
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, RATE)
            packet.stream = stream
            container.mux(packet)


def timeline(url: str, video: Path) -> dict[str, Any]:
    """Post the video to `/v1/timeline` and read the lines as they arrive."""
    began, first_s, windows = time.monotonic(), None, 0
    with (
        httpx.Client(base_url=url, timeout=None, verify=False) as http,
        video.open("rb") as file,
        http.stream(
            "POST", "/v1/timeline", params={"window_s": WINDOW_S, "top_k": 1}, content=file,
            headers={"Content-Type": "video/mp4"},
        ) as answer,
    ):  # fmt: skip
        answer.raise_for_status()
        for line in answer.iter_lines():
            first_s = first_s or time.monotonic() - began
            document = json.loads(line)
            windows += "window" in document
    complete = "summary" in document
    return {
        "windows": windows if complete else 0,
        "first_line_s": first_s,
        "seconds": time.monotonic() - began,
    }


def job(url: str, video: Path) -> dict[str, Any]:
    """Submit the video as a job and wait for its end."""
    began = time.monotonic()
    query: dict[str, str | float] = {"kind": "timeline", "window_s": WINDOW_S, "top_k": 1}
    with httpx.Client(base_url=url, timeout=600, verify=False) as http, video.open("rb") as file:
        answer = http.post("/v1/jobs", params=query, content=file, headers={"Content-Type": "video/mp4"})
        place = answer.raise_for_status().headers["Location"]
        while (document := http.get(place).raise_for_status().json())["finished_at"] is None:
            time.sleep(POLL_S)
    result = document["result"]
    return {
        "windows": result["summary"]["windows"] if result else 0,
        "first_line_s": None,
        "seconds": time.monotonic() - began,
    }


def memory(samples: list[int]) -> dict[str, float]:
    """Peak memory, and the growth from the first half of a run to the second, in MB."""
    half = len(samples) // 2
    medians = [statistics.median(part) if part else 0.0 for part in (samples[:half], samples[half:])]
    return {
        "peak_mb": max(samples, default=0) / 1e6,
        "growth_mb": (medians[1] - medians[0]) / 1e6 if half else 0.0,
    }


def _loop() -> tuple[list[tuple[bytes, bool]], av.VideoStream]:
    """The coded pictures of the repeated part, and the stream with its parameters."""
    scene = np.random.default_rng(1).integers(0, 256, (9, 16, 3)).astype(np.uint8)
    scene = scene.repeat(10, axis=0).repeat(10, axis=1)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=RATE, options={"bf": "0", "g": str(LOOP_FRAMES)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(LOOP_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(scene, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    source = av.open(io.BytesIO(file.getvalue()), "r")
    track = source.streams.video[0]
    return [(bytes(packet), packet.is_keyframe) for packet in source.demux(track) if packet.size], track


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        (
            run["name"],
            str(run["windows"]),
            "" if run["first_line_s"] is None else f"{run['first_line_s']:.2f}",
            f"{run['seconds']:.0f}",
            f"{run['peak_mb']:.0f}",
            f"{run['growth_mb']:+.1f}",
        )
        for run in document["runs"]
    ]
    head = ("request", "windows", "first line after s", "seconds", "peak MB", "second half - first half MB")
    return f"""# A long video

{document["hours"]:g} hours of {WIDTH}x{HEIGHT} at {RATE} frames per second, {document["bytes"] / 1e6:.1f} MB,
in windows of {WINDOW_S:g} s. Memory is the proportional set size of all processes of the service.
Command: `python -m benchmarks.long_video`.
{report.described_machine(document["machine"])}

{report.table(head, rows)}"""


if __name__ == "__main__":
    typer.run(main)

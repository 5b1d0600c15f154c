"""4K videos for containers with little memory: the kernel may kill decode workers, but not the service.

    make up && python -m benchmarks.memory_limit

Several callers post 4K videos. At the same time small videos and `/healthz` are requested. The exit status
is 1 if the service restarted, `/healthz` failed once, or no small video was answered.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.decode import videos

NAME = "memory_limit"
SMALL = Path(__file__).parents[1] / "examples" / "clip.mp4"
[LARGE] = [recipe for recipe in videos.RECIPES if recipe.name == "4k"]
LIMITS = ["450m", "300m"]
STARTED_WITHIN_S = 120.0
PAUSE_S = 0.1


def main(
    image: Annotated[str, typer.Option(help="Image of the service.")] = "blvnet-serve:latest",
    program: Annotated[str, typer.Option(help="podman or docker.")] = "docker",
    memory: Annotated[list[str], typer.Option(help="Memory limit of a container; repeatable.")] = LIMITS,
    callers: Annotated[int, typer.Option(min=1, help="Callers with 4K videos.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Duration for each limit.")] = 30.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure the answers of containers with little memory."""
    with tempfile.TemporaryDirectory() as folder:
        large = videos.make(LARGE, Path(folder)).read_bytes()
    runs = []
    for limit in memory:
        with container(program, image, limit) as (name, http):
            began = inspect(program, name)["State"]["StartedAt"]
            answers = load(http, large, callers, seconds)
            state = inspect(program, name)
            restarts = state["RestartCount"] + (state["State"]["StartedAt"] != began)
            runs.append(
                {"memory": limit, **answers, "restarts": restarts, "killed_workers": killed_workers(http)}
            )
    document = {"callers": callers, "seconds": seconds, "runs": runs, "machine": report.machine()}
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    if any(run["restarts"] or set(run["healthz"]) != {"200"} or not run["small"].get("200") for run in runs):
        raise typer.Exit(1)


@contextmanager
def container(program: str, image: str, memory: str) -> Iterator[tuple[str, httpx.Client]]:
    """Run the image with a memory limit and no swap; yields its id and a client of the service."""
    port = serving.free_port()
    options = [f"--memory={memory}", f"--memory-swap={memory}", "--init", "--read-only"]
    options += ["--tmpfs=/tmp:size=100m", "--restart=always", f"--publish=127.0.0.1:{port}:8000"]
    name = subprocess.run(
        [program, "run", "--detach", *options, image],
        check=True,
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),  # when a process is killed, podman leaves a file there
    ).stdout.strip()
    try:
        with serving.client(f"http://127.0.0.1:{port}") as http:
            deadline = time.monotonic() + STARTED_WITHIN_S
            while not serving.ready(http):
                if time.monotonic() > deadline:
                    raise serving.ServiceFailed("the container is not ready")
                time.sleep(PAUSE_S)
            yield name, http
    finally:
        subprocess.run([program, "rm", "--force", name], check=True, capture_output=True)


def inspect(program: str, name: str) -> dict[str, Any]:
    """The output of the program's `inspect` for a container."""
    printed = subprocess.run([program, "inspect", name], check=True, capture_output=True, text=True).stdout
    [found] = json.loads(printed)
    return dict(found)


def load(http: httpx.Client, large: bytes, callers: int, seconds: float) -> dict[str, dict[str, int]]:
    """Post videos and request `/healthz` for some seconds; return the answers by status for each kind."""
    end = time.monotonic() + seconds

    def repeat(method: str, path: str, body: bytes | None) -> Counter[str]:
        answers = Counter[str]()
        while time.monotonic() < end:
            try:
                answers[str(http.request(method, path, content=body).status_code)] += 1
            except httpx.TransportError as exc:
                answers[type(exc).__name__] += 1
            time.sleep(PAUSE_S)
        return answers

    with ThreadPoolExecutor(callers + 2) as pool:
        posted = [pool.submit(repeat, "POST", "/v1/classify", large) for _ in range(callers)]
        small = pool.submit(repeat, "POST", "/v1/classify", SMALL.read_bytes())
        healthz = pool.submit(repeat, "GET", "/healthz", None)
        total = sum((answers.result() for answers in posted), Counter[str]())
        return {"4k": dict(total), "small": dict(small.result()), "healthz": dict(healthz.result())}


def killed_workers(http: httpx.Client) -> int:
    """Number of decode workers that the kernel has killed."""
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == "blvnet_decode_worker_restarts_total" and sample.labels["reason"] == "killed"
    )


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        (
            run["memory"],
            *(_counts(run[kind]) for kind in ("4k", "small", "healthz")),
            str(run["killed_workers"]),
            str(run["restarts"]),
        )
        for run in document["runs"]
    ]
    head = ("memory", "4K videos", "small videos", "`/healthz`", "killed workers", "restarts of the service")
    return f"""# 4K videos with little memory

A container without swap for {document["seconds"]:g} s, with {document["callers"]} callers of 4K videos,
one of a small video and one of `/healthz`.
Command: `python -m benchmarks.memory_limit`.
{report.described_machine(document["machine"])}

{report.table(head, rows)}"""


def _counts(answers: dict[str, int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))


if __name__ == "__main__":
    typer.run(main)

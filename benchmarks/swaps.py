"""Replaces a model repeatedly under load; reports failed requests and memory growth.

    python -m benchmarks.swaps

Callers post the same video continuously while new versions of the package replace each other, alternately by
a `load` request and by SIGHUP. Every answer must be a 200 with the same label as the first answer.

Memory is the proportional set size after each old version was unloaded, of the main process and of all
processes. The latter includes the decode workers, which grow and are recycled after 200 videos. The slope is
that of a least-squares line over all swaps after the first fifth, with its standard error.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.common.processes import process_pss_bytes, pss_bytes
from benchmarks.serving_race.figures import percentile
from benchmarks.stages import moving_texture
from model_export.progress import counting
from service.packages.folders import bundled_models, scan_packages
from service.packages.manifest import read_manifest, write_manifest

NAME = "swaps"
ADMIN_KEY = "benchmark-admin-key"
MB = 1e6
CORRECT = "correct"
UNLOAD_LIMIT_S = 60.0
POLL_S = 0.02
PAUSE_S = 0.5  # pause between two swaps


@dataclass
class CallerAnswers:
    """The answers that callers received."""

    outcomes: Counter[str] = field(default_factory=Counter)
    versions: set[int] = field(default_factory=set)
    times: list[tuple[float, float]] = field(default_factory=list)  # (start, duration in s)

    @property
    def failed(self) -> int:
        """Number of requests without a correct answer."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != CORRECT)

    @classmethod
    def merged(cls, parts: Iterable[CallerAnswers]) -> CallerAnswers:
        """Merge the answers of several callers."""
        whole = cls()
        for part in parts:
            whole.outcomes += part.outcomes
            whole.versions |= part.versions
            whole.times += part.times
        return whole


@dataclass(frozen=True)
class Swap:
    """One swap: its start, the seconds until the new version was ready, the time of unloading, and memory."""

    began: float
    swapped_s: float
    ended: float
    own_mb: float
    all_mb: float


def main(
    package: Annotated[
        Path | None, typer.Option(help="Package (NAME/VERSION) to swap; default: the demo model.")
    ] = None,
    swaps: Annotated[int, typer.Option(min=5, help="Number of swaps.")] = 50,
    callers: Annotated[int, typer.Option(min=1, help="Number of concurrent callers.")] = 4,
    measure: Annotated[bool, typer.Option(help="Compare the engines at every load.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Swap a model under load; the exit status is 1 if a request failed."""
    clip = moving_texture()
    with tempfile.TemporaryDirectory() as folder:
        seen, done = _run(Versions(package or _demo(), Path(folder)), clip, swaps, callers, measure=measure)
    document = summary(seen, done) | {
        "package": None if package is None else package.name,
        "callers": callers,
        "engines_compared_each_time": measure,
        "machine": report.machine(),
    }
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    if seen.failed:
        raise typer.Exit(1)


class Versions:
    """A folder of packages in which new versions replace old ones."""

    def __init__(self, package: Path, folder: Path) -> None:
        self._package = package
        self._manifest = read_manifest(package)
        self.models = folder / "models"
        self.cache = folder / "cache"
        self.name = self._manifest.name
        self.version = 0
        self.next()

    def next(self) -> None:
        """Add the next version atomically and remove the previous one."""
        version = self.version + 1
        folder = self.models / self.name / f".{version}"
        shutil.copytree(self._package, folder)
        write_manifest(self._manifest.model_copy(update={"version": version}), folder)
        folder.rename(folder.with_name(str(version)))
        if self.version:
            shutil.rmtree(folder.with_name(str(self.version)))
        self.version = version

    def forget_engines(self) -> None:
        """Clear the cache of engine measurements."""
        shutil.rmtree(self.cache, ignore_errors=True)


def _demo() -> Path:
    return scan_packages(bundled_models()).packages[0].folder


def _run(
    versions: Versions, clip: bytes, swaps: int, callers: int, *, measure: bool
) -> tuple[CallerAnswers, list[Swap]]:
    environment = {
        "BLVNET_ADMIN_KEY": ADMIN_KEY,
        "BLVNET_CACHE_DIR": str(versions.cache),
        "BLVNET_QUEUE_LIMIT": str(max(64, callers)),
    }
    done = []
    with serving.service(versions.models, environment) as service, serving.client(service.url) as client:
        seen = [CallerAnswers() for _ in range(callers)]
        with _load(service.url, clip, seen), counting("swaps", swaps) as tick:
            for number in range(swaps):
                time.sleep(PAUSE_S)
                if measure:
                    versions.forget_engines()
                ask = _by_signal if number % 2 else _by_request
                request = partial(ask, service, client, versions.name)
                done.append(_swap(versions, request, client, service.pid))
                tick(1)
    return CallerAnswers.merged(seen), done


def _by_request(_service: serving.ServiceProcess, client: httpx.Client, name: str) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    answer = client.post(f"/v2/repository/models/{name}/load", headers=headers)
    if answer.status_code != httpx.codes.OK:
        raise serving.ServiceFailed(f"{answer.status_code}: {answer.text}")


def _by_signal(service: serving.ServiceProcess, _client: httpx.Client, _name: str) -> None:
    os.kill(service.pid, signal.SIGHUP)


def _swap(versions: Versions, ask: Callable[[], None], client: httpx.Client, pid: int) -> Swap:
    versions.next()
    began = time.monotonic()
    ask()
    _until(lambda: (versions.version, "ready") in _states(client))
    swapped = time.monotonic()
    # The old version's folder was removed, so its entry disappears when its memory is freed.
    _until(lambda: len(_states(client)) == 1)
    ended = time.monotonic()
    return Swap(began, swapped - began, ended, process_pss_bytes(pid) / MB, pss_bytes(pid) / MB)


def _states(client: httpx.Client) -> list[tuple[int, str]]:
    return [(entry["version"], entry["state"]) for entry in client.get("/v1/models").json()["models"]]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UNLOAD_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise serving.ServiceFailed(f"the swap did not finish within {UNLOAD_LIMIT_S:.0f} s")
        time.sleep(POLL_S)


@contextmanager
def _load(url: str, clip: bytes, seen: Sequence[CallerAnswers]) -> Iterator[None]:
    """Run one caller per element of `seen`, which posts the video during the block."""
    with serving.client(url) as client:
        label = serving.classify(client, clip)["predictions"][0]["label"]
    ended = threading.Event()
    with ThreadPoolExecutor(len(seen)) as pool:
        calls = [pool.submit(_post_until, ended, url, clip, label, own) for own in seen]
        try:
            yield
        finally:
            ended.set()
        for call in calls:
            call.result()


def _post_until(ended: threading.Event, url: str, clip: bytes, label: str, seen: CallerAnswers) -> None:
    with serving.client(url) as client:
        while not ended.is_set():
            began = time.monotonic()
            try:
                answer = serving.classify(client, clip)
            except (serving.ServiceFailed, httpx.TransportError) as exc:
                seen.outcomes[str(exc)[:100] or type(exc).__name__] += 1
                continue
            right = answer["predictions"][0]["label"] == label
            seen.outcomes[CORRECT if right else "different label"] += 1
            seen.versions.add(answer["model"]["version"])
            seen.times.append((began, time.monotonic() - began))


def summary(seen: CallerAnswers, done: Sequence[Swap]) -> dict[str, Any]:
    """All figures of the report."""
    during: list[float] = []
    other: list[float] = []
    for began, took in seen.times:
        beside = any(swap.began <= began + took and began <= swap.ended for swap in done)
        (during if beside else other).append(took)
    return {
        "swaps": len(done),
        "requests": seen.outcomes.total(),
        "failed": seen.failed,
        "outcomes": dict(seen.outcomes),
        "versions_that_answered": len(seen.versions),
        "swap_s": statistics.median(swap.swapped_s for swap in done),
        "unloaded_s": statistics.median(swap.ended - swap.began for swap in done),
        "latency_ms": {"during a swap": _latency(during), "otherwise": _latency(other)},
        "memory": {
            "main process": _memory([swap.own_mb for swap in done]),
            "all processes": _memory([swap.all_mb for swap in done]),
        },
    }


def _memory(pss_mb: Sequence[float]) -> dict[str, Any]:
    settled = pss_mb[len(pss_mb) // 5 :]
    slope, error = line(settled)
    return {
        "first_mb": pss_mb[0],
        "settled_mb": settled[0],
        "last_mb": pss_mb[-1],
        "least_mb": min(settled),
        "most_mb": max(settled),
        "slope_mb": slope,
        "slope_error_mb": error,
        "pss_mb": [round(value, 1) for value in pss_mb],
    }


def line(values: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line through evenly spaced values, and its standard error."""
    places = range(len(values))
    slope, start = statistics.linear_regression(places, values)
    residue = sum((value - start - slope * place) ** 2 for place, value in zip(places, values, strict=True))
    spread = sum((place - statistics.fmean(places)) ** 2 for place in places)
    return slope, (residue / (len(values) - 2) / spread) ** 0.5


def _latency(seconds: Sequence[float]) -> dict[str, float | None]:
    shown = {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "max": percentile(seconds, 1)}
    return {name: None if value is None else round(1e3 * value, 1) for name, value in shown.items()}


def as_text(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    latency = [
        (when, *(f"{value:.0f}" if value is not None else "" for value in values.values()))
        for when, values in found["latency_ms"].items()
    ]
    memory = [
        (
            whose,
            *(f"{values[name]:.1f}" for name in ("first_mb", "settled_mb", "last_mb", "least_mb", "most_mb")),
            f"{values['slope_mb']:+.3f} ± {values['slope_error_mb']:.3f}",
        )
        for whose, values in found["memory"].items()
    ]
    return (
        "# Swaps under load\n\n"
        f"{found['swaps']} swaps with {found['callers']} callers: {found['failed']} of "
        f"{found['requests']} requests failed. {found['versions_that_answered']} versions answered.\n\n"
        f"A swap took {found['swap_s']:.2f} s; the old version was unloaded after "
        f"{found['unloaded_s']:.2f} s (medians).\n\n"
        + report.table(("latency in ms", "p50", "p99", "maximum"), latency)
        + "\n"
        + report.table(
            ("memory in MB", "first", "after a fifth", "last", "minimum", "maximum", "growth per swap"),
            memory,
        )
        + f"\n{report.described_machine(found['machine'])}\n"
    )


if __name__ == "__main__":
    typer.run(main)

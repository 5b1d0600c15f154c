"""Many taught models on one base: memory, latency, batches, and retrainings under load.

    python -m benchmarks.taught_load

- **Memory**: of the main process with one taught model and with many, after a request to each.
- **Latency**: `/v1/classify` for the base and for a taught model in turn, one request at a time.
- **Batches**: concurrent callers post to one taught model, then to 20 of them in turn.
- **Retraining**: callers post to a taught model while it is trained again; every answer must be a 200.

The heads have random weights, which cost as much as learned ones.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from benchmarks.common import report
from benchmarks.common import service_process as serving
from benchmarks.common.processes import process_pss_bytes
from benchmarks.stages import moving_texture
from model_export.progress import counting
from service.packages.folders import bundled_models, scan_packages
from service.packages.manifest import (
    HEAD_FILE,
    BaseReference,
    Manifest,
    clip_fields,
    read_manifest,
    sha256_of,
    write_manifest,
)

NAME = "taught_load"
LABELS = 10
SEGMENTS = 4
MB = 1e6
MIXED = 20
SETTINGS = {"BLVNET_QUEUE_LIMIT": "256", "BLVNET_CACHE_MB": "0"}
# On a CPU clips are batched only on request, and with one thread, because concurrent runs are faster.
BATCH_SETTINGS = SETTINGS | {"BLVNET_MAX_BATCH": "8", "BLVNET_INFERENCE_THREADS": "1"}
SAMPLE = re.compile(r"^blvnet_batch_size_(sum|count)\{.*\} (\S+)$", re.MULTILINE)


def main(
    base: Annotated[
        Path | None,
        typer.Option(help="Package (NAME/VERSION) with features; default: the bundled one."),
    ] = None,
    heads: Annotated[int, typer.Option(min=20, help="Number of taught models.")] = 100,
    requests: Annotated[int, typer.Option(min=10, help="Requests for each latency.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each concurrent load.")] = 10,
    callers: Annotated[int, typer.Option(min=2, help="Number of concurrent callers.")] = 8,
    trainings: Annotated[int, typer.Option(min=1, help="Number of trainings under load.")] = 50,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of it.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure taught models; the exit status is 1 if a request failed."""
    if quick:
        requests, seconds, trainings = requests // 5, seconds / 5, max(1, trainings // 5)
    load_before = os.getloadavg()[0]
    folder = base or scan_packages(bundled_models()).packages[0].folder
    with tempfile.TemporaryDirectory() as temporary:
        few, many = Path(temporary, "few"), Path(temporary, "many")
        for models, count in ((few, 1), (many, heads)):
            (models / folder.parent.name).mkdir(parents=True)
            (models / folder.parent.name / folder.name).symlink_to(folder.resolve())
            for number in range(count):
                write_head(models, folder, f"head{number}")
        document: dict[str, Any] = {
            "base": f"{folder.parent.name}/{folder.name}",
            "heads": heads,
            "memory_mb": {"one": _memory_mb(few, 1), "many": _memory_mb(many, heads)},
            "latency": _latency(many, folder.parent.name, requests),
            "batches": _batches(many, folder, callers, seconds),
            "retraining": _retraining(few, folder.parent.name, callers, trainings, Path(temporary, "taught")),
            "machine": report.machine(),
            "load_before": round(load_before, 1),
        }
    report.write(NAME, document, text := as_text(document), out)
    print(text)
    if document["retraining"]["failed"]:
        raise typer.Exit(1)


def write_head(models: Path, base: Path, name: str) -> None:
    """Write a taught package with random weights, `models/name/1`."""
    of_base = read_manifest(base)
    folder = models / name / "1"
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(name))
    weights = random.normal(0, 0.01, (SEGMENTS, _feature_size(base), LABELS)).astype(np.float32)
    np.savez(
        folder / HEAD_FILE, weights=weights, bias=np.zeros(LABELS, np.float32), temperature=np.float64(1)
    )
    manifest = Manifest.create(
        schema=1,
        name=name,
        version=1,
        architecture=of_base.architecture,
        **clip_fields(of_base.clip),
        labels=tuple(f"label {number}" for number in range(LABELS)),
        precision=of_base.precision,
        sha256=sha256_of(folder / HEAD_FILE),
        base=BaseReference(name=of_base.name, version=of_base.version, sha256=of_base.sha256),
        threshold=0.5,
    )
    write_manifest(manifest, folder)


def _feature_size(base: Path) -> int:
    import onnxruntime

    session = onnxruntime.InferenceSession(base / "model.onnx", providers=["CPUExecutionProvider"])
    sizes = [int(output.shape[2]) for output in session.get_outputs() if output.name == "features"]
    if not sizes:
        raise typer.BadParameter(f"{base} returns no features and cannot be a base")
    return sizes[0]


def _memory_mb(models: Path, heads: int) -> float:
    clip = moving_texture()
    with serving.service(models, SETTINGS) as service, serving.client(service.url) as client:
        for number in range(heads):
            serving.classify(client, clip, model=f"head{number}")
        return process_pss_bytes(service.pid) / MB


def _latency(models: Path, base: str, requests: int) -> dict[str, float]:
    clip = moving_texture()
    times: dict[str, list[float]] = {base: [], "head0": []}
    with serving.service(models, SETTINGS) as service, serving.client(service.url) as client:
        for number, (name, taken) in itertools.product(range(requests + 10), times.items()):
            start = time.perf_counter()
            serving.classify(client, clip, model=name)
            if number >= 10:  # without the first ones, which warm up
                taken.append((time.perf_counter() - start) * 1e3)
    more = [taught - plain for plain, taught in zip(times[base], times["head0"], strict=True)]
    return {
        "base_p50_ms": median(times[base]),
        "taught_p50_ms": median(times["head0"]),
        "more_p50_ms": median(more),
    }


def _batches(models: Path, base: Path, callers: int, seconds: float) -> dict[str, dict[str, float]]:
    """Load with tensors, because decoding would be slower than a batch."""
    content, headers = _tensors(read_manifest(base))
    found = {}
    with serving.service(models, BATCH_SETTINGS) as service, serving.client(service.url) as client:
        for kind, names in (("one", ["head0"]), ("mixed", [f"head{number}" for number in range(MIXED)])):
            paths = [f"/v2/models/{name}/infer" for name in names]
            before = _runs(client)
            begin = time.monotonic()
            with _load(service.url, paths, callers, content, headers) as outcomes:
                time.sleep(seconds)
            took = time.monotonic() - begin
            rows, runs = (now - then for now, then in zip(_runs(client), before, strict=True))
            found[kind] = {"clips_per_run": rows / runs, "clips_per_s": len(outcomes) / took}
    return found


def _tensors(manifest: Manifest) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request with the tensors of one clip."""
    arrays = {item.name: np.zeros((1, *item.shape(manifest.frames)), np.uint8) for item in manifest.inputs}
    inputs = [
        {
            "name": name,
            "datatype": "UINT8",
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    head = json.dumps({"inputs": inputs}).encode()
    content = head + b"".join(array.tobytes() for array in arrays.values())
    return content, {"Inference-Header-Content-Length": str(len(head))}


def _runs(client: httpx.Client) -> tuple[float, float]:
    """Views and runs so far."""
    values = {kind: float(value) for kind, value in SAMPLE.findall(client.get("/metrics").text)}
    return values.get("sum", 0.0), values.get("count", 0.0)


def _retraining(
    models: Path, base: str, callers: int, trainings: int, teach_dir: Path
) -> dict[str, float | int]:
    settings = SETTINGS | {"BLVNET_TEACH_DIR": str(teach_dir)}
    with serving.service(models, settings) as service, serving.client(service.url) as client:
        for number, label in itertools.product(range(3), ("still", "moving")):
            clip = moving_texture(seed=number + 10 * (label == "moving"))
            query = {"label": label, "base": base}
            client.post("/v1/taught/again/examples", params=query, content=clip).raise_for_status()
        client.post("/v1/taught/again/train").raise_for_status()
        taken = []
        path, clip = "/v1/classify?model=again", moving_texture()
        with _load(service.url, [path], callers, clip) as outcomes, counting("trainings", trainings) as tick:
            for _ in range(trainings):
                answer = client.post("/v1/taught/again/train")
                answer.raise_for_status()
                taken.append(answer.json()["seconds"])
                tick(1)
    return {
        "trainings": trainings,
        "training_p50_s": median(taken),
        "requests": len(outcomes),
        "failed": sum(outcome != httpx.codes.OK for outcome in outcomes),
    }


@contextmanager
def _load(
    url: str, paths: Sequence[str], callers: int, content: bytes, headers: Mapping[str, str] | None = None
) -> Iterator[list[int]]:
    """Post the content to the paths in turn, from several callers, during the block; yields the statuses."""
    outcomes, stop = list[int](), threading.Event()
    fields = {"Content-Type": "application/octet-stream"} | dict(headers or {})

    def call(first: int) -> None:
        with serving.client(url) as client:
            for number in itertools.count(first):
                if stop.is_set():
                    return
                path = paths[number % len(paths)]
                try:
                    outcomes.append(client.post(path, content=content, headers=fields).status_code)
                except httpx.TransportError:
                    outcomes.append(0)

    with ThreadPoolExecutor(callers) as pool:
        done = [pool.submit(call, number) for number in range(callers)]
        try:
            yield outcomes
        finally:
            stop.set()
            for task in done:
                task.result()


def as_text(document: dict[str, Any]) -> str:
    """The results as Markdown."""
    memory, latency = document["memory_mb"], document["latency"]
    one, mixed = document["batches"]["one"], document["batches"]["mixed"]
    retraining = document["retraining"]
    figure: Callable[[float], str] = "{:.1f}".format
    rows = [
        ("memory of the main process, one taught model", f"{figure(memory['one'])} MB"),
        (f"memory with {document['heads']} taught models", f"{figure(memory['many'])} MB"),
        ("difference, at most 40 MB", f"{figure(memory['many'] - memory['one'])} MB"),
        ("median latency, base", f"{latency['base_p50_ms']:.2f} ms"),
        ("median latency, taught model", f"{latency['taught_p50_ms']:.2f} ms"),
        ("median difference of a request to each, at most 1 ms", f"{latency['more_p50_ms']:.2f} ms"),
        ("clips per run, one taught model", figure(one["clips_per_run"])),
        (f"clips per run, {MIXED} taught models in turn", figure(mixed["clips_per_run"])),
        ("throughput, one taught model", f"{figure(one['clips_per_s'])} clips/s"),
        (f"throughput, {MIXED} taught models in turn", f"{figure(mixed['clips_per_s'])} clips/s"),
        ("trainings under load", str(retraining["trainings"])),
        ("median duration of a training under load", f"{figure(retraining['training_p50_s'])} s"),
        ("requests meanwhile", str(retraining["requests"])),
        ("of which failed", str(retraining["failed"])),
    ]
    return (
        f"Taught models on `{document['base']}`:\n\n{report.table(('', 'value'), rows)}"
        f"\n{report.described_machine(document['machine'])} The load of the machine before the start was"
        f" {document['load_before']}.\n"
    )


if __name__ == "__main__":
    typer.run(main)

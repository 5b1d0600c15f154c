"""Profiles a graph by operator with onnxruntime, in a separate process."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from service.subprocesses.process import WorkloadProcess
from service.subprocesses.workload import Arrays, RunBatch, Workload

RUNS = 5
UNTIMED = 2


def operator_times(graph: Path, clips: Arrays, threads: int) -> dict[str, float]:
    """Seconds per run by type of operator, in descending order.

    Args:
        graph: an ONNX file.
        clips: the input batch.
        threads: number of threads.
    """
    options = {"graph": graph, "threads": threads}
    workload = Workload(str(graph), "benchmarks.inference.operators:load_profiled", options, threads)
    with WorkloadProcess(workload) as process:
        process.load(clips)
        profile = process.compute(clips)
    times = zip(profile["operators"].tolist(), profile["seconds"].tolist(), strict=True)
    return dict(sorted(times, key=lambda item: -item[1]))


def load_profiled(graph: Path, threads: int) -> RunBatch:
    """A workload that returns the names of `operators` and the `seconds` of each."""

    def run(clips: Arrays) -> Arrays:
        times = _profiled(graph, threads, clips)
        return {"operators": np.array(list(times)), "seconds": np.array(list(times.values()))}

    return run


def _profiled(graph: Path, threads: int, clips: Arrays) -> dict[str, float]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for _ in range(UNTIMED + RUNS):
            session.run(None, dict(clips))
        return seconds_by_operator(json.loads(Path(session.end_profiling()).read_text()))


def seconds_by_operator(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds per run by operator from the events of a profile, without the first `UNTIMED` runs."""
    runs = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    begin = runs[UNTIMED]
    total: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            total[event["args"]["op_name"]] += event["dur"] / 1e6 / (len(runs) - UNTIMED)
    return dict(total)

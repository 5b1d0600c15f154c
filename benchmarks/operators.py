"""Where a graph's time goes, by operator: onnxruntime's own profile of it, in a process of its own."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from service.contenders.contender import Arrays, Contender, Workload
from service.contenders.process import ContenderProcess

RUNS = 5
UNTIMED = 2


def operator_times(graph: Path, clips: Arrays, threads: int) -> dict[str, float]:
    """Seconds of one run in each kind of operator, as onnxruntime names what it runs; the most first.

    Args:
        graph: an ONNX file.
        clips: the batch that it runs with.
        threads: of the run.
    """
    options = {"graph": graph, "threads": threads}
    contender = Contender(str(graph), "benchmarks.operators:load_profiled", options, threads)
    with ContenderProcess(contender) as process:
        process.load(clips)
        profile = process.answers(clips)
    times = zip(profile["operators"].tolist(), profile["seconds"].tolist(), strict=True)
    return dict(sorted(times, key=lambda item: -item[1]))


def load_profiled(graph: Path, threads: int) -> Workload:
    """A workload that answers with `operators`, their names, and `seconds` of each."""

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
    """Seconds of one run by operator, from the events of a profile; the first `UNTIMED` runs do not count."""
    runs = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    begin = runs[UNTIMED]
    total: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            total[event["args"]["op_name"]] += event["dur"] / 1e6 / (len(runs) - UNTIMED)
    return dict(total)

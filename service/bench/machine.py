"""The machine that figures were measured on, and the rate of its matrix product as a measure of its speed."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from service.machine.resources import usable_cores
from service.subprocesses.workload import Arrays, RunBatch, Workload

CPUINFO = Path("/proc/cpuinfo")
SIZE = 2048  # 17 GFLOP on 50 MB: too large for caches, and long enough that start-up costs are negligible
GFLOP = 2 * SIZE**3 / 1e9


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """CPU model, usable cores, first NVIDIA GPU, and versions of Python and installed `libraries`."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    cpus = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cpu = next(cpus, platform.processor() or platform.machine())
    described: dict[str, Any] = {"cpu": cpu, "cores": usable_cores()}
    if tool := shutil.which("nvidia-smi"):
        command = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command
        if done.returncode == 0 and done.stdout:
            described["gpu"] = done.stdout.splitlines()[0].replace(", ", ", driver ")
    described["python"] = platform.python_version()
    for name in libraries:
        with suppress(PackageNotFoundError):
            described[name] = version(name)
    return described


def matrix_product(threads: int) -> Workload:
    """The product of two square float32 matrices in numpy. A batch is one product."""
    return Workload(
        name="matrix product",
        factory="service.bench.machine:load_matrix_product",
        options={},
        threads=threads,
        gflop=GFLOP,
    )


def load_matrix_product() -> RunBatch:
    """Create the matrices."""
    generator = np.random.default_rng(0)
    left, right = (generator.random((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    product = np.empty_like(left)

    def run(_: Arrays) -> Arrays:
        np.matmul(left, right, out=product)
        return {}

    return run

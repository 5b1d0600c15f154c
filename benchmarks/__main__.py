"""`python -m benchmarks [NAME...]`: run the named benchmarks, or all of them, one after the other.

Every module of this package with a `main` is a benchmark; `python -m benchmarks.NAME --help` has its options.
Each runs in a process of its own, so that none warms up or slows down the next.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

FOLDER = Path(__file__).parent
GPU_ONLY = {"inference_gpu"}


def names() -> list[str]:
    """The benchmarks there are, sorted."""
    modules = sorted(FOLDER.glob("[!_]*.py"))
    return [path.stem for path in modules if "\ndef main(" in path.read_text(encoding="utf-8")]


def _possible() -> set[str]:
    """Those that this machine can run."""
    return set(names()) - (set() if shutil.which("nvidia-smi") else GPU_ONLY)


def main(chosen: Annotated[list[str] | None, typer.Argument(metavar="NAME...")] = None) -> None:
    """Run the named benchmarks, or all of them; their tables go to benchmarks/results."""
    unknown = sorted(set(chosen or []) - set(names()))
    if unknown:
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; there are: {', '.join(names())}")
    console = Console(stderr=True)
    if not chosen and (left_out := sorted(GPU_ONLY - _possible())):
        console.print(f"left out, as there is no GPU: {', '.join(left_out)}")
    failed = []
    for name in chosen or sorted(_possible()):
        console.rule(name)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        console.print(f"failed: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

"""`python -m benchmarks [NAME...]`: run the named benchmarks, or all of them, in turn.

`python -m benchmarks.NAME --help` lists the options of one. Each runs in its own process, so that no
benchmark warms up or slows down the next.
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
HOURS = {"study"}  # runs only if it is named
NEEDS_DATA = {"teach"}  # `python -m benchmarks.teach DATA`
NEEDS_IMAGE = {"memory_limit"}  # the service's image, which `make up` builds


def names() -> list[str]:
    """The benchmarks, sorted: packages with a `__main__` and modules with a `main`."""
    packages = {path.parent.name for path in FOLDER.glob("*/__main__.py")}
    modules = FOLDER.glob("[!_]*.py")
    return sorted(
        packages | {path.stem for path in modules if "\ndef main(" in path.read_text(encoding="utf-8")}
    )


def _possible() -> set[str]:
    """The benchmarks that run if none is named."""
    return (
        set(names()) - HOURS - NEEDS_DATA - NEEDS_IMAGE - (set() if shutil.which("nvidia-smi") else GPU_ONLY)
    )


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

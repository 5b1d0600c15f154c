"""Runs `python -m benchmarks.inference`."""

import typer

from benchmarks.inference.command import main

typer.run(main)

"""Runs `python -m benchmarks.accuracy`."""

import typer

from benchmarks.accuracy.command import main

typer.run(main)

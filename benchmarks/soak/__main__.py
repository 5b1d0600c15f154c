"""Runs `python -m benchmarks.soak`."""

import typer

from benchmarks.soak.command import main

typer.run(main)

"""Runs `python -m benchmarks.training`."""

import typer

from benchmarks.training.command import main

typer.run(main)

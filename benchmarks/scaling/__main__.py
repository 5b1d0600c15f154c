"""Run with `python -m benchmarks.scaling`."""

from benchmarks.scaling.command import app

app()

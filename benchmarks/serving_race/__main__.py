"""Runs `python -m benchmarks.serving_race`."""

import typer

from benchmarks.serving_race.command import main

typer.run(main)

"""Runs `python -m benchmarks.study`."""

import typer

from benchmarks.study.command import main

typer.run(main)

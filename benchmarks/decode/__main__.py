"""Runs `python -m benchmarks.decode`."""

import typer

from benchmarks.decode.command import main

typer.run(main)

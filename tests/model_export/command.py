"""The `blvnet` command line, run in this process: importing torch takes seconds."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from service.cli import main


@dataclass(frozen=True)
class Result:
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


def blvnet(*arguments: object) -> Result:
    """Run `blvnet ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    argv = ["blvnet", *(str(argument) for argument in arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Result(status, out.getvalue(), err.getvalue())

"""Running a training in a separate process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

from pydantic import ValidationError

from service.subprocesses.process import import_path
from service.subprocesses.workload import THREAD_VARIABLES
from service.taught.training_process import TaskResult, TrainingOutcome, TrainingTask

logger = logging.getLogger(__name__)


async def run_training(task: TrainingTask) -> TaskResult:
    """Train and return the result. The process is killed on cancellation."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "service.taught.training_process",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # One core at most: on a busy machine, several BLAS threads mostly wait for each other.
        env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"PYTHONPATH": import_path()},
        start_new_session=True,  # Ctrl-C interrupts the service, which ends this process
    )
    try:
        output, errors = await process.communicate(task.model_dump_json(by_alias=True).encode())
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        return TaskResult.model_validate_json(output)
    except ValidationError:
        logger.error("a training process has failed: %s", errors.decode(errors="replace")[-4000:])
    status = process.returncode or 0
    reason = (
        f"its process was ended by {signal.Signals(-status).name}" if status < 0 else "its process failed"
    )
    return TaskResult(outcome=TrainingOutcome.FAILED, message=reason)

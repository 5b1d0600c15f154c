"""Log lines of one shape for everything in the process: structlog renders what `logging` collects.

Every module logs with `logging.getLogger(__name__)` and `extra={...}`; nothing else is needed to end up in
the same line format, uvicorn's own loggers included.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from service.settings import LogFormat, LogLevel


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Send all log lines to `stream` (standard error if not given), in this format, from this level on."""
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_collectors(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_private_fields,
                # As text: the variant with structure would also write the local variables of every frame.
                structlog.processors.format_exc_info,
                _renderer(log_format, colors=out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Uvicorn tells of its start and stop, which this service does for itself.
    logging.getLogger("uvicorn.error").setLevel(max(root.level, logging.WARNING))


def _collectors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _without_private_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Leave out what a library hangs on all records for its own use, behind an underscore, as Ray does."""
    return {name: value for name, value in fields.items() if not name.startswith("_")}


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    match log_format:
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer(ensure_ascii=False)
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(colors=colors)

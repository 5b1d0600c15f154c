"""Log configuration: structlog renders the records of the standard `logging` module.

Modules log with `logging.getLogger(__name__)` and `extra={...}`. Libraries, such as uvicorn, get the same
line format.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from service.settings import LogFormat, LogLevel


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Log records of at least `level` to `stream`, standard error by default."""
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_collectors(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_private_fields,
                # Text, because structured tracebacks would include the local variables of every frame.
                structlog.processors.format_exc_info,
                _renderer(log_format, colors=out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # The service itself logs its start, its stop and its webhooks. URLs of webhooks may contain secrets.
    for library in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(max(root.level, logging.WARNING))


def _collectors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _without_private_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Drop fields whose names start with an underscore, which libraries such as Ray add for their own use."""
    return {name: value for name, value in fields.items() if not name.startswith("_")}


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    match log_format:
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer(ensure_ascii=False)
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(colors=colors)

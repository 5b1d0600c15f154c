"""All log lines have the same format."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from service.monitoring import logs
from service.settings import LogFormat, LogLevel


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    before = (root.handlers, root.level, uvicorn.level)
    yield io.StringIO()
    root.handlers = before[0]
    root.setLevel(before[1])
    uvicorn.setLevel(before[2])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_the_message_its_fields_and_its_origin(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    logging.getLogger("some.where").info("read %d bytes", 3, extra={"route": "/v1/classify"})
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "read 3 bytes", "route": "/v1/classify", "logger": "some.where", "level": "info"}


def test_line_omits_fields_that_a_library_adds_to_every_record(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    logging.getLogger("core").info("decoded", extra={"_library_own": 1, "frames": 2})
    [line] = lines(stream)
    assert "_library_own" not in line
    assert line["frames"] == 2


def test_line_carries_the_request_that_it_was_logged_in(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    with bound_contextvars(request_id="id-1"):
        logging.getLogger("core").info("decoded")
    assert lines(stream)[0]["request_id"] == "id-1"


def test_level_filters_less_severe_lines(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.WARNING, stream)
    logging.getLogger("core").info("detail")
    logging.getLogger("core").warning("trouble")
    assert [line["event"] for line in lines(stream)] == ["trouble"]


def test_exception_is_logged_without_local_variables(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    secret = "clip-content"[::-1]
    try:
        int(f"x{len(secret)}")
    except ValueError:
        logging.getLogger("core").exception("failed")
    [line] = lines(stream)
    assert "ValueError" in line["exception"]
    assert secret not in stream.getvalue()


def test_warnings_of_uvicorn_have_the_same_format_and_its_info_lines_are_dropped(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    logging.getLogger("uvicorn.error").info("Application startup complete.")
    logging.getLogger("uvicorn.error").error("Invalid state")
    assert [line["event"] for line in lines(stream)] == ["Invalid state"]


def test_console_line_is_readable(stream: io.StringIO) -> None:
    logs.configure(LogFormat.CONSOLE, LogLevel.INFO, stream)
    logging.getLogger("core").info("ready", extra={"port": 80})
    assert "ready" in stream.getvalue()
    assert "port=80" in stream.getvalue()

"""The record of a request: its id, its age, and its upload."""

from __future__ import annotations

import re
import time

import pytest
from starlette.requests import HTTPConnection

from service.http.context import RequestRecord, open_record, record_of


def connection(request_id: str | None = None) -> HTTPConnection:
    headers = [] if request_id is None else [(b"x-request-id", request_id.encode("latin-1"))]
    return HTTPConnection({"type": "http", "headers": headers})


@pytest.mark.parametrize("request_id", ["a", "A-1._:/+=", "x" * 128])
def test_well_formed_id_of_the_client_is_used(request_id: str) -> None:
    assert open_record(connection(request_id)).request_id == request_id


@pytest.mark.parametrize("request_id", [None, "", "with blank", "x" * 129, "é", 'say "a"'])
def test_other_requests_get_a_new_id(request_id: str | None) -> None:
    first, second = (open_record(connection(request_id)).request_id for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_record_belongs_to_its_connection() -> None:
    one, other = connection("one"), connection("other")
    records = open_record(one), open_record(other)
    assert (record_of(one), record_of(other)) == records


def test_age_is_in_milliseconds_and_is_that_of_the_upload_when_it_is_complete() -> None:
    record = RequestRecord("a", started=time.monotonic() - 1000)
    record.received(7)
    assert record.upload_bytes == 7
    assert 1_000_000 <= record.stages_ms["receive"] <= record.elapsed_ms() < 2_000_000

"""The limits of a body, and the memory that it takes."""

from __future__ import annotations

import pytest

from service.errors import BadRequest, TooLarge
from service.http.open_inference.tensors import (
    BINARY_MEMORY,
    JSON_MEMORY,
    MAX_JSON_CONTAINERS,
    max_body_bytes,
    memory_bytes,
    parse,
)


def limit(header_length: str | None, *, upload: int = 1000, document: int = 100) -> int:
    return max_body_bytes(header_length, max_upload_bytes=upload, max_json_bytes=document)


def test_document_alone_has_the_limit_of_json_and_no_more_than_that_of_uploads() -> None:
    assert (limit(None), limit(None, upload=50)) == (100, 50)


@pytest.mark.parametrize("header_length", ["0", "100", "no number", "9" * 30])
def test_binary_data_have_the_limit_of_uploads(header_length: str) -> None:
    assert limit(header_length) == 1000  # a malformed length is refused when the body is parsed


def test_announced_document_beyond_its_limit_is_refused() -> None:
    with pytest.raises(TooLarge, match="limit of 100 bytes"):
        limit("101")


def test_memory_is_that_of_the_document_and_of_the_binary_data() -> None:
    assert memory_bytes(1000, None) == 1000 * JSON_MEMORY
    assert memory_bytes(1000, "100") == 100 * JSON_MEMORY + 900 * BINARY_MEMORY
    assert memory_bytes(1000, "1000") == 1000 * JSON_MEMORY
    assert [memory_bytes(1000, length) for length in ("1001", "x")] == [1000 * JSON_MEMORY] * 2


@pytest.mark.parametrize("length", ["x", "-1", "3", "1" * 20, "²"])
def test_length_that_is_not_that_of_a_document_is_refused(length: str) -> None:
    with pytest.raises(BadRequest, match="is not the length of the JSON"):
        parse(b"{}", length, ["logits"])


def test_document_with_too_many_lists_is_not_parsed() -> None:
    def nested(lists: int) -> bytes:
        return b'{"inputs":[' + b"[]," * (lists - 3) + b"[]]}"

    with pytest.raises(BadRequest, match="more than 100000 lists and objects"):
        parse(nested(MAX_JSON_CONTAINERS + 1), None, ["logits"])
    with pytest.raises(BadRequest, match=r"^inputs"):  # it is parsed
        parse(nested(MAX_JSON_CONTAINERS), None, ["logits"])

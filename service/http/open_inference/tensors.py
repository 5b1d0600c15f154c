"""Conversion of Open Inference Protocol v2 requests and responses between bytes and arrays, without HTTP.

A body is a JSON document, or a JSON document of a given length followed by the bytes of tensors in the order
in which the document names them (the binary tensor data extension). Clients control every part of it, so
every part is checked.

Source: https://github.com/kserve/open-inference-protocol, Triton's "Binary Tensor Data Extension".
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.clip.spec import ClipSpec
from service.engines.session import Inputs, Outputs
from service.errors import BadRequest, TooLarge
from service.http.open_inference.schemas import InferenceRequest, RequestInput, RequestOutput
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS

CLIP = "clip"  # input that holds an encoded video instead of the graph's inputs
# Parsing holds Python's global lock, and takes far longer for lists than for numbers.
MAX_JSON_CONTAINERS = 100_000
# Memory per byte of a body while it is parsed. In JSON, "[]," becomes a list of 64 bytes and '{"":0},' a dict
# of 200 bytes. Binary data is in memory once, or twice if it is copied.
JSON_MEMORY = 32
BINARY_MEMORY = 2
MAX_LENGTH_DIGITS = 19
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class ParsedRequest:
    """A request, validated except for its tensors, whose shapes depend on the model."""

    document: InferenceRequest
    binary: Mapping[str, memoryview]

    @property
    def has_video(self) -> bool:
        """Whether the request holds an encoded video instead of the graph's inputs."""
        return [item.name for item in self.document.inputs] == [CLIP]

    def without_inputs(self) -> ParsedRequest:
        """Return the request without its inputs, so that their memory is freed once they are arrays."""
        return ParsedRequest(self.document.model_copy(update={"inputs": []}), {})


@dataclass(frozen=True)
class ResponseBody:
    """A response; `json_bytes` is the length of the JSON document if tensors follow it, otherwise None."""

    content: bytes
    json_bytes: int | None


def max_body_bytes(header_length: str | None, *, max_upload_bytes: int, max_json_bytes: int) -> int:
    """Return the body limit: that of JSON, unless `Inference-Header-Content-Length` announces binary data.

    Raises:
        TooLarge: the announced JSON document exceeds its limit.
    """
    if header_length is None:
        return min(max_json_bytes, max_upload_bytes)
    if _is_length(header_length) and int(header_length) > max_json_bytes:
        raise TooLarge(f"The JSON document exceeds the limit of {max_json_bytes} bytes.")
    return max_upload_bytes


def parse(body: bytes, header_length: str | None, output_names: Sequence[str]) -> ParsedRequest:
    """Split and validate a body.

    Args:
        body: as received.
        header_length: value of `Inference-Header-Content-Length`; None for a body that is only JSON.
        output_names: outputs of the model.

    Raises:
        BadRequest: the body is not a request of the protocol; the message says where.
    """
    length = len(body)
    if header_length is not None:
        if not _is_length(header_length) or int(header_length) > len(body):
            raise BadRequest(
                "Inference-Header-Content-Length is not the length of the JSON at the body's start."
            )
        length = int(header_length)
    text = body[:length]
    if text.count(b"[") + text.count(b"{") > MAX_JSON_CONTAINERS:
        raise BadRequest(
            f"The JSON document has more than {MAX_JSON_CONTAINERS} lists and objects; send large tensors as "
            "binary data, or as flat lists."
        )
    try:
        document = InferenceRequest.model_validate_json(text)
    except ValidationError as exc:
        raise BadRequest("; ".join(map(_error_message, exc.errors(include_url=False)))) from None
    names = [item.name for item in document.inputs]
    if len(set(names)) < len(names):
        raise BadRequest("An input appears more than once.")
    for name in (item.name for item in document.outputs):
        if name not in output_names:
            raise BadRequest(f"Unknown output {name[:100]!r}; the model has {' and '.join(output_names)}.")
    return ParsedRequest(document, _split_binary(document, memoryview(body)[length:]))


def memory_bytes(size_bytes: int, header_length: str | None) -> int:
    """Return an upper bound of the memory that `parse` needs. The arrays are no larger than the body."""
    if header_length is None or not _is_length(header_length) or int(header_length) > size_bytes:
        return JSON_MEMORY * size_bytes
    return JSON_MEMORY * int(header_length) + BINARY_MEMORY * (size_bytes - int(header_length))


def tensors(request: ParsedRequest, spec: ClipSpec) -> Inputs:
    """Return the graph's inputs, uint8 `(N, T_branch, size, size, 3)` each.

    Raises:
        BadRequest: a tensor is missing or unknown, or its type or shape differs from the model's.
    """
    given = {item.name: item for item in request.document.inputs}
    shapes = {item.name: item.shape(spec.frames) for item in spec.inputs}
    if given.keys() != shapes.keys():
        raise BadRequest(
            f"The request has the inputs {', '.join(sorted(given))[:200]}; the model takes "
            f"{' and '.join(shapes)}, or '{CLIP}' alone."
        )
    arrays = {name: _tensor(given[name], request.binary.get(name), shape) for name, shape in shapes.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise BadRequest("The inputs have different numbers of clips (the first axis).")
    return arrays


def video(request: ParsedRequest) -> bytes:
    """Return the encoded video of a request.

    Raises:
        BadRequest: it is not exactly one BYTES element.
    """
    (item,) = request.document.inputs
    if item.datatype != "BYTES" or math.prod(item.shape) != 1:
        raise BadRequest(f"'{CLIP}' is {item.datatype[:20]} {item.shape}; it must be BYTES with one element.")
    if (data := request.binary.get(CLIP)) is not None:
        if len(data) < _LENGTH.size or _LENGTH.unpack(data[: _LENGTH.size])[0] != len(data) - _LENGTH.size:
            raise BadRequest(f"'{CLIP}' must be a length in 4 bytes, little-endian, and that many bytes.")
        return bytes(data[_LENGTH.size :])
    values: list[Any] = item.data or []
    for _ in item.shape:  # the list may be nested as deep as the shape
        if len(values) == 1 and isinstance(values[0], list):
            values = values[0]
    if len(values) != 1 or not isinstance(values[0], str):
        raise BadRequest(f"'{CLIP}' must have one string in 'data'.")
    try:
        return base64.b64decode(values[0], validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"'{CLIP}' in JSON must be base64; binary tensor data takes the bytes.") from None


def response_body(
    request: ParsedRequest, outputs: Outputs, labels: Sequence[str], model: str, version: int
) -> ResponseBody:
    """Build the response with the outputs in the requested form.

    Raises:
        BadRequest: a parameter of an output is invalid.
    """
    arrays = {LOGITS: outputs.logits, EVIDENCE: outputs.evidence}
    if outputs.features is not None:
        arrays[FEATURES] = outputs.features
    all_binary = request.document.parameters.get("binary_data_output") is True
    requested = request.document.outputs or [RequestOutput(name=name) for name in arrays]
    documents: list[dict[str, Any]] = []
    binary_parts: list[bytes] = []
    for item in requested:
        values = arrays[item.name]
        classes = item.parameters.get("classification", 0)
        binary = item.parameters.get("binary_data", all_binary) is True
        data: list[Any] | bytes
        if classes == 0:
            fields: dict[str, Any] = {"datatype": "FP32", "shape": list(values.shape)}
            data = values.astype("<f4").tobytes() if binary else values.ravel().tolist()
        else:
            texts = _classification(item.name, values, classes, labels)
            fields = {"datatype": "BYTES", "shape": [len(values), len(texts) // len(values)]}
            data = (
                b"".join(_LENGTH.pack(len(text)) + text for text in map(str.encode, texts))
                if binary
                else texts
            )
        if isinstance(data, bytes):
            fields["parameters"] = {"binary_data_size": len(data)}
            binary_parts.append(data)
        else:
            fields["data"] = data
        documents.append({"name": item.name} | fields)
    document: dict[str, Any] = {"model_name": model, "model_version": str(version), "outputs": documents}
    if request.document.id is not None:
        document["id"] = request.document.id
    text = json.dumps(document, separators=(",", ":")).encode()
    tail = b"".join(binary_parts)
    return ResponseBody(text + tail, len(text) if tail else None)


def _is_length(text: str) -> bool:
    # Python refuses to parse numbers of thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) <= MAX_LENGTH_DIGITS


def _split_binary(document: InferenceRequest, rest: memoryview) -> dict[str, memoryview]:
    """Return the bytes after the document, by the name of their input."""
    found: dict[str, memoryview] = {}
    for item in document.inputs:
        size = item.parameters.get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(rest) or item.data is not None:
            raise BadRequest(f"The binary data of input {item.name[:100]!r} does not match binary_data_size.")
        found[item.name], rest = rest[:size], rest[size:]
    if rest:
        raise BadRequest(f"The body has {len(rest)} more bytes than its inputs.")
    return found


def _tensor(item: RequestInput, binary: memoryview | None, shape: Sequence[int]) -> NDArray[np.uint8]:
    if item.datatype != "UINT8" or item.shape[1:] != list(shape) or item.shape[0] < 1:
        raise BadRequest(
            f"Input {item.name!r} is {item.datatype[:20]} {item.shape}; the model takes UINT8 {[-1, *shape]}."
        )
    values = _pixels(item) if binary is None else np.frombuffer(binary, np.uint8)
    if values.size != math.prod(item.shape):
        raise BadRequest(
            f"Input {item.name!r} has {values.size} values, but its shape {math.prod(item.shape)}."
        )
    return values.reshape(item.shape)


def _pixels(item: RequestInput) -> NDArray[np.uint8]:
    try:
        values = np.array(item.data if item.data is not None else [])
    except (ValueError, OverflowError):
        values = np.array(None)
    # NumPy turns ragged lists and numbers above 64 bits into objects, and empty lists into floats.
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise BadRequest(f"The 'data' of input {item.name!r} must be whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def _classification(
    name: str, values: NDArray[np.float32], count: object, labels: Sequence[str]
) -> list[str]:
    """The `count` best classes of each row as `value:index:label` (Triton's classification extension)."""
    if type(count) is not int or count < 1 or name != LOGITS:
        raise BadRequest(f"'classification' must be a whole number of 1 or more, and applies to {LOGITS}.")
    best = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return [
        f"{row[index]:f}:{index}:{labels[index]}"
        for row, order in zip(values, best, strict=True)
        for index in order
    ]


def _error_message(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"The request is not a JSON document: {error['ctx']['error']}."
    where = ".".join(map(str, error["loc"])) or "the document"
    return f"{where}: {str(error['msg']).removeprefix('Input ')}"

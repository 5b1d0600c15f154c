"""Requests and answers of the Open Inference Protocol v2, between bytes and arrays; nothing here knows HTTP.

A body is a JSON document, or a JSON document of a known length with the bytes of tensors behind it, in the
order in which the document names them (the protocol's binary tensor data extension). What is in it is the
caller's, so every part of it is checked.

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
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from service.clip.spec import ClipSpec
from service.errors import BadRequest
from service.runtime.session import Inputs, Outputs
from service.runtime.signature import EVIDENCE, LOGITS

CLIP = "clip"  # instead of the graph's own inputs: an encoded video
OUTPUTS = (LOGITS, EVIDENCE)
MOST_TENSORS = 16
# Memory for each byte of a body while it is taken apart. A list in JSON takes 64 bytes for "[]," and an
# object 200 for '{"":0},'; binary data is there once, and once more where it is copied.
JSON_MEMORY = 32
BINARY_MEMORY = 2
MOST_DIGITS = 20  # of a length; Python refuses to read a number of thousands
_LENGTH = struct.Struct("<I")

Parameters = dict[str, Any]


class RequestedInput(BaseModel):
    """A tensor of a request; its values are in `data`, or behind the document as so many bytes."""

    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(max_length=8)
    datatype: str
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """A tensor that the answer shall have."""

    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferenceRequest(BaseModel):
    """The JSON document of a request."""

    id: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    inputs: list[RequestedInput] = Field(min_length=1, max_length=MOST_TENSORS)
    outputs: list[RequestedOutput] = Field(default_factory=list, max_length=MOST_TENSORS)


@dataclass(frozen=True)
class Call:
    """A request, checked but for its tensors, which wait until the model is known."""

    document: InferenceRequest
    binary: Mapping[str, memoryview]

    @property
    def wants_clip(self) -> bool:
        """Whether it brings an encoded video in the place of the graph's inputs."""
        return [item.name for item in self.document.inputs] == [CLIP]

    def without_inputs(self) -> Call:
        """What is wanted, without what it is wanted of: that takes memory, and arrays have it by now."""
        return Call(self.document.model_copy(update={"inputs": []}), {})


@dataclass(frozen=True)
class Body:
    """An answer; `json_bytes` is the length of its document when tensors follow it, else None."""

    content: bytes
    json_bytes: int | None


def parse(body: bytes, header_length: str | None) -> Call:
    """Take a body apart.

    Args:
        body: as it was sent.
        header_length: value of `Inference-Header-Content-Length`; None when the body is JSON alone.

    Raises:
        BadRequest: it is not a request of the protocol; the message says where.
    """
    length = _json_length(body, header_length)
    try:
        document = InferenceRequest.model_validate(json.loads(body[:length]))
    except ValidationError as exc:
        raise BadRequest("; ".join(map(_complaint, exc.errors(include_url=False)))) from None
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"The request is not a JSON document that can be read: {exc}.") from None
    names = [item.name for item in document.inputs]
    if len(set(names)) < len(names):
        raise BadRequest("An input is there more than once.")
    for name in (item.name for item in document.outputs):
        if name not in OUTPUTS:
            raise BadRequest(f"There is no output {name[:100]!r}; there are {' and '.join(OUTPUTS)}.")
    return Call(document, _binary(document, memoryview(body)[length:]))


def memory_bytes(size_bytes: int, header_length: str | None) -> int:
    """The most memory that taking a body apart may need; see `parse`. Its arrays are no larger than it is."""
    if header_length is None or not _is_length(header_length) or int(header_length) > size_bytes:
        return JSON_MEMORY * size_bytes
    return JSON_MEMORY * int(header_length) + BINARY_MEMORY * (size_bytes - int(header_length))


def tensors(call: Call, spec: ClipSpec) -> Inputs:
    """The graph's inputs, uint8 `(N, T_branch, size, size, 3)` each.

    Raises:
        BadRequest: a tensor is missing or unknown, or has another type or shape than the graph takes.
    """
    given = {item.name: item for item in call.document.inputs}
    wanted = {item.name: item.shape(spec.frames) for item in spec.inputs}
    if given.keys() != wanted.keys():
        raise BadRequest(
            f"The inputs are {', '.join(sorted(given))[:200]}; the model takes {' and '.join(wanted)},"
            f" or '{CLIP}' alone."
        )
    arrays = {name: _tensor(given[name], call.binary.get(name), shape) for name, shape in wanted.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise BadRequest("The inputs have different numbers of clips (the first axis).")
    return arrays


def clip(call: Call) -> bytes:
    """The encoded video of a request that brings one.

    Raises:
        BadRequest: it is not one BYTES element.
    """
    (item,) = call.document.inputs
    if item.datatype != "BYTES" or math.prod(item.shape) != 1:
        raise BadRequest(f"'{CLIP}' is {item.datatype[:20]} {item.shape}; it must be BYTES with one element.")
    if (data := call.binary.get(CLIP)) is not None:
        if len(data) < _LENGTH.size or _LENGTH.unpack(data[: _LENGTH.size])[0] != len(data) - _LENGTH.size:
            raise BadRequest(f"'{CLIP}' is not a length in 4 bytes, little-endian, and so many bytes.")
        return bytes(data[_LENGTH.size :])
    values = _flat(item)
    if len(values) != 1 or not isinstance(values[0], str):
        raise BadRequest(f"'{CLIP}' must have one string in 'data'.")
    try:
        return base64.b64decode(values[0], validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"'{CLIP}' in JSON must be base64; binary tensor data takes it as it is.") from None


def answer(call: Call, outputs: Outputs, labels: Sequence[str], model: str, version: int) -> Body:
    """What came out of the graph, in the form that was asked for.

    Raises:
        BadRequest: a parameter of an output cannot be met.
    """
    values = {LOGITS: outputs.logits, EVIDENCE: outputs.evidence}
    everything_binary = call.document.parameters.get("binary_data_output") is True
    wanted = call.document.outputs or [RequestedOutput(name=name) for name in OUTPUTS]
    written: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for item in wanted:
        binary = item.parameters.get("binary_data", everything_binary) is True
        classes = item.parameters.get("classification", 0)
        if classes == 0:
            part, data = _floats(values[item.name], binary=binary)
        else:
            part, data = _classes(item.name, values[item.name], classes, labels, binary=binary)
        written.append({"name": item.name} | part)
        tail.append(data)
    document: dict[str, Any] = {"model_name": model, "model_version": str(version), "outputs": written}
    if call.document.id is not None:
        document["id"] = call.document.id
    text = json.dumps(document, separators=(",", ":")).encode()
    binary_data = b"".join(tail)
    return Body(text + binary_data, len(text) if binary_data else None)


def _json_length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not _is_length(header_length) or int(header_length) > len(body):
        raise BadRequest("Inference-Header-Content-Length is not the length of the JSON at the body's start.")
    return int(header_length)


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS


def _binary(document: InferenceRequest, rest: memoryview) -> dict[str, memoryview]:
    """The bytes behind the document, by the input that they belong to."""
    found: dict[str, memoryview] = {}
    for item in document.inputs:
        size = item.parameters.get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(rest) or item.data is not None:
            raise BadRequest(f"The binary data of input {item.name[:100]!r} is not there as announced.")
        found[item.name], rest = rest[:size], rest[size:]
    if rest:
        raise BadRequest(f"{len(rest)} bytes follow that belong to no input.")
    return found


def _tensor(item: RequestedInput, binary: memoryview | None, shape: Sequence[int]) -> NDArray[np.uint8]:
    if item.datatype != "UINT8" or item.shape[1:] != list(shape) or item.shape[0] < 1:
        raise BadRequest(
            f"Input {item.name!r} is {item.datatype[:20]} {item.shape}; the model takes UINT8 {[-1, *shape]}."
        )
    values = _pixels(item) if binary is None else np.frombuffer(binary, np.uint8)
    if values.size != math.prod(item.shape):
        raise BadRequest(f"Input {item.name!r} has {values.size} values, its shape {math.prod(item.shape)}.")
    return values.reshape(item.shape)


def _pixels(item: RequestedInput) -> NDArray[np.uint8]:
    try:
        values = np.array(item.data if item.data is not None else [])
    except (ValueError, OverflowError):
        values = np.array(None)
    # Lists of unequal lengths and numbers past 64 bits end as objects, a list of nothing as floats.
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise BadRequest(f"The 'data' of input {item.name!r} must be whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def _flat(item: RequestedInput) -> list[Any]:
    """The values of a list that may be nested as deep as the shape."""
    values: list[Any] = item.data or []
    for _ in item.shape:
        if len(values) == 1 and isinstance(values[0], list):
            values = values[0]
    return values


def _floats(values: NDArray[np.float32], *, binary: bool) -> tuple[dict[str, Any], bytes]:
    part: dict[str, Any] = {"datatype": "FP32", "shape": list(values.shape)}
    if not binary:
        return part | {"data": values.ravel().tolist()}, b""
    data = values.astype("<f4").tobytes()
    return part | {"parameters": {"binary_data_size": len(data)}}, data


def _classes(
    name: str, values: NDArray[np.float32], count: object, labels: Sequence[str], *, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """The best classes as strings `value:index:label` (the classification extension), best first."""
    if type(count) is not int or count < 1 or name != LOGITS:
        raise BadRequest(f"'classification' takes a whole number from 1, and is for {LOGITS}.")
    best = np.argsort(-values, axis=1, kind="stable")[:, :count]
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}"
        for row, order in zip(values, best, strict=True)
        for index in order
    ]
    part: dict[str, Any] = {"datatype": "BYTES", "shape": list(best.shape)}
    if not binary:
        return part | {"data": texts}, b""
    data = b"".join(_LENGTH.pack(len(text)) + text for text in (item.encode() for item in texts))
    return part | {"parameters": {"binary_data_size": len(data)}}, data


def _complaint(error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"])) or "the document"
    return f"{where}: {str(error['msg']).removeprefix('Input ')}"

"""The manifest: what it accepts, and one-line errors that name the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import PackageError
from service.packages.manifest import MANIFEST_FILE, Manifest, Scores, read_manifest, write_manifest
from tests.support.tiny_models import TWO_STREAMS, reference, write_head, write_package

INPUT = {"name": "little", "frames": "even", "size": 32, "scale": 36}


def read_with(tmp_path: Path, **fields: Any) -> Manifest:
    return read_manifest(write_package(tmp_path, **fields))


def test_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_with(tmp_path, reference=reference(), gmacs=1.5, parity={"logits": 1e-6})
    (tmp_path / "copy").mkdir()
    write_manifest(manifest, tmp_path / "copy")
    assert read_manifest(tmp_path / "copy") == manifest
    assert manifest.clip == TWO_STREAMS


def test_optional_and_unknown_fields(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    optional = ("stride", "mirror", "scores", "gmacs", "graphs", "reference", "parity", "provenance")
    required = {name: value for name, value in document.items() if name not in optional}
    (folder / MANIFEST_FILE).write_text(json.dumps(required | {"added_later": 1}))
    manifest = read_manifest(folder)
    assert (manifest.stride, manifest.mirror, manifest.gmacs, manifest.reference) == (1, None, None, None)
    assert manifest.scores is Scores.SOFTMAX
    assert (manifest.graphs, manifest.parity, manifest.provenance) == ({}, {}, {})


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"schema": 2}, "schema is 2: should be 1"),
        ({"name": "../up"}, "name is '../up': must be letters, digits"),
        ({"name": "a\n"}, "name is 'a\\\\n': "),
        ({"version": 0}, "version is 0: should be greater than or equal to 1"),
        ({"version": "1"}, "version is '1': should be a valid integer"),
        ({"version": True}, "version is True: should be a valid integer"),
        ({"frames": 1025}, "frames is 1025: should be less than or equal to 1024"),
        ({"sampling": "sparse"}, "sampling is 'sparse': should be 'uniform' or 'dense'"),
        ({"scores": "ranks"}, "scores is 'ranks': should be 'softmax' or 'sigmoid'"),
        ({"inputs": []}, "inputs is .*: .* at least 1 item"),
        ({"inputs": [INPUT, INPUT]}, "inputs: two have the same name"),
        ({"inputs": [INPUT | {"size": 0}]}, "inputs: name must not be empty, and 1 <= size <= scale <= 4096"),
        ({"inputs": [INPUT | {"scale": 31}]}, "inputs: name must not be empty, and 1 <= size <= scale"),
        ({"inputs": [INPUT | {"size": "wide"}]}, "inputs.0.size is 'wide': should be a valid integer"),
        ({"labels": ["a", "a"]}, "labels: two are the same"),
        ({"labels": ["a", ""]}, "labels.1 is '': .* at least 1 character"),
        ({"labels": "abc"}, "labels is 'abc': "),
        ({"sha256": "0" * 63}, "sha256 is '0+.*: must be 64 hexadecimal digits"),
        ({"graphs": {"openvino": {"file": "../x", "sha256": "0" * 64}}}, "graphs.openvino.file is '../x': "),
        ({"graphs": {"openvino": {"file": "model.json", "sha256": "0" * 64}}}, "must not be model.json"),
        ({"reference": {"probe": 1, "bound": 1, "logits": [[0, 0, 0]]}}, "reference.bound is 1"),
        ({"reference": {"probe": 1, "bound": 0.1, "logits": []}}, "reference.logits is "),
        ({"reference": {"probe": 1, "bound": 0.1, "logits": [[0, 0]]}}, "must have 3 values"),
        ({"reference": {"probe": 1, "bound": 0.1, "logits": [[0, 0, 1e39]]}}, "reference.logits.0.2 is 1e"),
        ({"mirror": [0, 1]}, "mirror: must have 3 indices of labels"),
        ({"mirror": [1, 2, 0]}, "mirroring twice must restore each label"),
        ({"mirror": [0, 1, 3]}, "mirror: must have 3 indices of labels"),
        ({"mirror": [-3, 1, 2]}, "mirror: must have 3 indices of labels"),
        ({"mirror": [0, 1, None]}, "mirror.2 is None: should be a valid integer"),
    ],
)
def test_invalid_field_is_named_in_one_line(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    folder = write_package(tmp_path)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(document | fields))
    with pytest.raises(PackageError, match=rf"model\.json: .*{complaint}") as caught:
        read_manifest(folder)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


def test_missing_fields_are_named_and_counted(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text("{}")
    with pytest.raises(PackageError, match=r"name is missing; version is missing; .*; \d more"):
        read_manifest(tmp_path)


def test_huge_manifest_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST_FILE).open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(PackageError, match=r"model\.json has more than 64000000 bytes"):
        read_manifest(tmp_path)


def test_mirror_says_which_label_each_label_becomes(tmp_path: Path) -> None:
    assert read_with(tmp_path, mirror=[1, 0, 2]).mirror == (1, 0, 2)


def test_head_with_scores_of_its_base_is_refused(tmp_path: Path) -> None:
    """A head is fitted with softmax, regardless of the scores of its base."""
    base = write_package(tmp_path, scores="sigmoid")
    folder = write_head(tmp_path, base)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(document | {"scores": "sigmoid"}))
    with pytest.raises(PackageError, match="scores: those of a taught package are softmax"):
        read_manifest(folder)

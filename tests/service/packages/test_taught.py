"""Taught packages on disk: written whole or not at all, and checked when they are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.errors import PackageError
from service.packages.folders import next_version
from service.packages.manifest import Manifest, read_manifest, verify_graph
from service.packages.taught import read_head, write_taught
from service.teaching.learning.learn import Taught, learn
from tests.service.teaching.examples import examples
from tests.support.full_disk import full_disk
from tests.support.tiny_models import TinyModel, write_head, write_package


@pytest.fixture(scope="module")
def moves() -> Taught:
    return learn(examples({"up": 3, "down": 3}))


@pytest.fixture
def base(tmp_path: Path) -> Manifest:
    return read_manifest(write_package(tmp_path / "bases", "colours", model=TinyModel(features=True)))


def test_a_head_is_read_as_it_was_written(tmp_path: Path, moves: Taught, base: Manifest) -> None:
    written = write_taught(tmp_path, "moves", base, moves)
    folder = tmp_path / "moves" / "1"
    manifest = read_manifest(folder)
    assert manifest == written
    assert manifest.is_taught
    assert (manifest.labels, manifest.threshold) == (("down", "up"), moves.threshold)
    assert manifest.base is not None
    assert (manifest.base.name, manifest.base.version, manifest.base.sha256) == ("colours", 1, base.sha256)
    verify_graph(manifest, folder)
    head = read_head(folder, manifest)
    np.testing.assert_array_equal(head.weights, moves.head.weights)
    np.testing.assert_array_equal(head.bias, moves.head.bias)
    assert head.temperature == 1.0
    assert write_taught(tmp_path, "moves", base, moves).version == 2


def test_packages_with_a_graph_have_no_fields_of_taught_ones(base: Manifest) -> None:
    assert not {"base", "threshold", "report"} & base.to_json().keys()


def test_a_changed_or_missing_head_is_refused(tmp_path: Path, moves: Taught, base: Manifest) -> None:
    manifest = write_taught(tmp_path, "moves", base, moves)
    folder = tmp_path / "moves" / "1"
    (folder / "head.npz").write_bytes((folder / "head.npz").read_bytes()[:-1] + b"x")
    with pytest.raises(PackageError, match=r"head\.npz has SHA-256"):
        verify_graph(manifest, folder)
    (folder / "head.npz").unlink()
    with pytest.raises(PackageError, match=r"head\.npz cannot be read"):
        read_head(folder, manifest)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"weights": np.zeros((1, 2, 2), np.float32)}, "holds no head"),
        ({"weights": np.zeros(3, np.float32), "bias": np.zeros(3, np.float32)}, "weights must be"),
        ({"weights": np.array([object()]), "bias": np.zeros(3, np.float32)}, "holds no head"),
        (
            {"weights": np.zeros((1, 2, 3), np.float32), "bias": np.zeros(3, np.float32)},
            "3 classes, .* 2 labels",
        ),
    ],
)
def test_a_file_that_holds_no_head_is_refused(
    tmp_path: Path, moves: Taught, base: Manifest, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    manifest = write_taught(tmp_path, "moves", base, moves)
    folder = tmp_path / "moves" / "1"
    np.savez(folder / "head.npz", temperature=np.float64(1), **arrays)  # type: ignore[arg-type]
    with pytest.raises(PackageError, match=complaint):
        read_head(folder, manifest)
    (folder / "head.npz").write_text("no archive")
    with pytest.raises(PackageError, match="holds no head"):
        read_head(folder, manifest)


def test_a_damaged_file_is_refused_wherever_the_damage_is(
    tmp_path: Path, moves: Taught, base: Manifest
) -> None:
    manifest = write_taught(tmp_path, "moves", base, moves)
    file = tmp_path / "moves" / "1" / "head.npz"
    head = read_head(file.parent, manifest)
    np.savez_compressed(file, weights=head.weights, bias=head.bias, temperature=np.float64(1))
    content = file.read_bytes()
    reasons = []
    for position in range(len(content)):
        for flipped in (1, 0x7F):
            damaged = bytearray(content)
            damaged[position] ^= flipped
            file.write_bytes(damaged)
            try:
                read_head(file.parent, manifest)
            except PackageError as exc:
                reasons.append(exc.message)
    assert len(reasons) > len(content)
    assert all("holds no head" in reason for reason in reasons)


@pytest.mark.parametrize("length", [10**12, 10**30])
def test_a_length_beyond_all_memory_is_refused(
    tmp_path: Path, moves: Taught, base: Manifest, length: int
) -> None:
    manifest = write_taught(tmp_path, "moves", base, moves)
    file = tmp_path / "moves" / "1" / "head.npz"
    array = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (length, 1, 2)}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights.npy", array.getvalue())
    with pytest.raises(PackageError, match="holds no head"):
        read_head(file.parent, manifest)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, moves: Taught, base: Manifest) -> None:
    with full_disk(after_bytes=64), pytest.raises(PackageError, match="the package cannot be written"):
        write_taught(tmp_path / "models", "moves", base, moves)
    assert not (tmp_path / "models").exists()


def test_names_that_cannot_serve_are_refused(tmp_path: Path, moves: Taught, base: Manifest) -> None:
    with pytest.raises(PackageError, match="another name than its base"):
        write_taught(tmp_path, base.name, base, moves)
    with pytest.raises(PackageError, match="the name of a model must be"):
        write_taught(tmp_path, "two words", base, moves)


def test_two_trainings_at_once_get_versions_of_their_own(
    tmp_path: Path, moves: Taught, base: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_taught(tmp_path, "moves", base, moves)
    first_answers = iter([1])  # as if the other training had written version 1 in the meantime
    monkeypatch.setattr(
        "service.packages.taught.next_version", lambda *of: next(first_answers, None) or next_version(*of)
    )
    assert write_taught(tmp_path, "moves", base, moves).version == 2


def test_a_taught_manifest_has_no_graphs(tmp_path: Path, moves: Taught, base: Manifest) -> None:
    manifest = write_taught(tmp_path, "moves", base, moves)
    assert [graph.file for graph in manifest.graph_files()] == ["head.npz"]
    graphs = {"openvino": {"file": "openvino.onnx", "sha256": "0" * 64}}
    bad = write_head(tmp_path, tmp_path / "bases" / "colours" / "1", "hues", graphs=graphs)
    with pytest.raises(PackageError, match="a taught package has no graphs"):
        read_manifest(bad)

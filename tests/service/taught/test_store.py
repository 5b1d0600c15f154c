"""Examples in a folder: whole or not at all, and for one process at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.errors import BlvnetError
from service.packages.manifest import BaseReference
from service.taught.store import ExampleRecord, ExampleStore, read_features
from tests.support.full_disk import full_disk

BASE = BaseReference(name="colours", version=1, sha256="0" * 64)
FEATURES = np.arange(24, dtype=np.float32).reshape(2, 4, 3)


def example(label: str, second: int = 0) -> ExampleRecord:
    return ExampleRecord(label=label, group=None, added_at=f"2026-01-01T00:00:{second:02d}+00:00", base=BASE)


def test_examples_are_found_again_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    for second, (key, label) in enumerate((("b", "warm"), ("a", "cold"), ("c", "warm"))):
        store.add("hues", key, example(label, second), FEATURES)
    store.close()
    again = ExampleStore(tmp_path)
    assert list(again.examples("hues")) == ["b", "a", "c"]
    assert (again.label_counts("hues"), again.base("hues")) == ({"cold": 1, "warm": 2}, BASE)
    assert again.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("examples/hues/*.npz"))
    assert (read_features(again.folder("hues") / "b.npz") == FEATURES).all()
    again.close()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    with full_disk(after_bytes=100), pytest.raises(OSError, match="File too large"):
        store.add("hues", "a", example("warm"), FEATURES)
    assert (store.names(), list((tmp_path / "examples").iterdir())) == (set(), [])
    store.add("hues", "a", example("warm"), FEATURES)
    assert store.names() == {"hues"}
    store.close()


def test_one_process_uses_a_folder_at_a_time(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    with pytest.raises(BlvnetError, match="is in use by another service"):
        ExampleStore(tmp_path)
    store.close()
    ExampleStore(tmp_path).close()


def test_files_that_hold_no_features_are_left_out_and_named(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    store.add("hues", "a", example("warm"), FEATURES)
    (store.folder("hues") / "b.npz").write_bytes(b"")
    (store.folder("hues") / ".c.npz.partial").write_bytes(b"half")
    store.close()
    again = ExampleStore(tmp_path)
    assert (list(again.examples("hues")), again.damaged("hues")) == (["a"], ["b.npz"])
    assert not (again.folder("hues") / ".c.npz.partial").exists()
    again.remove_all("hues")
    assert (again.names(), again.damaged("hues"), list(tmp_path.glob("examples/*"))) == (set(), [], [])
    again.close()


def test_damage_anywhere_in_a_file_leaves_out_that_example_only(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    store.add("hues", "a", example("warm"), FEATURES)
    content = (store.folder("hues") / "a.npz").read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x7F
        (store.folder("hues") / f"damaged-{position}.npz").write_bytes(damaged)
    store.close()
    again = ExampleStore(tmp_path)
    assert "a" in again.examples("hues")
    assert len(again.damaged("hues")) > len(content) // 30
    again.close()

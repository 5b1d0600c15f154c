"""The warnings about settings that do not fit the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.checks.fit import misfits
from service.machine.resources import resident_bytes, usable_memory_bytes
from service.settings import load_settings
from tests.support.server import starting_server

FRAME = {"max_pixels": 1_000_000}  # 36 MB in each worker


@pytest.mark.parametrize(("memory_mb", "fits"), [(271, False), (272, True)])
def test_memory_has_to_hold_the_process_and_the_pictures_of_all_workers(memory_mb: int, fits: bool) -> None:
    found = misfits(load_settings(FRAME), 2, memory_bytes=memory_mb * 10**6, used_bytes=200_000_000)
    assert [text.partition(" of ")[0] for text in found] == ([] if fits else ["the memory limit"])


def test_worker_counts_at_most_its_memory_limit() -> None:
    settings = load_settings(FRAME | {"max_pixels": 100_000_000, "decode_memory_mb": 128})
    assert list(misfits(settings, 1, memory_bytes=128_000_000, used_bytes=0)) == []


def test_folder_for_uploads_has_to_hold_one(tmp_path: Path) -> None:
    [text] = misfits(load_settings({"max_upload_mb": 100_000}), 1, memory_bytes=10**12, uploads=tmp_path)
    assert text.startswith(f"{tmp_path} has ")
    assert text.endswith("less than one upload of 100000 MB: enlarge it, or lower BLVNET_MAX_UPLOAD_MB")


def test_start_warns_of_what_does_not_fit(tiny_models: Path) -> None:
    with starting_server(tiny_models, MAX_UPLOAD_MB=100_000) as server:
        assert "less than one upload" in server.line(level="warning", logger="service.server")["event"]


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [("0::/\n", "memory.max", "1000000\n"), ("4:memory:/x\n", "memory/memory.limit_in_bytes", "1000000\n")],
)
def test_memory_limit_of_a_control_group_counts(tmp_path: Path, own: str, file: str, text: str) -> None:
    (tmp_path / "own").write_text(own)
    assert usable_memory_bytes(tmp_path, tmp_path / "own") > resident_bytes()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert usable_memory_bytes(tmp_path, tmp_path / "own") == 1_000_000
    (tmp_path / file).write_text("max\n" if own == "0::/\n" else "9223372036854771712\n")
    assert usable_memory_bytes(tmp_path, tmp_path / "own") > resident_bytes()

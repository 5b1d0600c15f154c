"""Fuzzes for a limited time (`--fuzz-seconds`); `python -m tests.fuzz` runs for hours."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from service.clip.bitstream.packet_info import Unplannable
from service.clip.bitstream.readers import reader_for
from tests.fuzz import clips
from tests.fuzz.clips import clip_number, fuzz
from tests.fuzz.long import run

ROOT = Path(__file__).parents[1]


def test_mutated_videos_cause_no_failure(pytestconfig: pytest.Config) -> None:
    seconds = pytestconfig.getoption("fuzz_seconds")
    fuzzing = asyncio.run(fuzz(first=0, seconds=seconds))
    assert [(find.number, find.what) for find in fuzzing.finds] == []
    assert fuzzing.answers["decoded"] > 0 < fuzzing.answers["undecodable"]


def test_mutations_are_deterministic() -> None:
    assert clip_number(7) == clip_number(7) != clip_number(8)


def test_long_run_stores_findings_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    going = (tmp_path, 1.5, 3, 1, lines.append, False)
    first, broke = asyncio.run(run(*going))
    assert (first.seed, first.rounds, broke, first.finds) == (3, 1, 0, [])
    assert first.next_clip == 3 * 10**6 + first.clips
    monkeypatch.setattr(clips, "TIMEOUT_S", 1e-4)  # no video finishes in time
    monkeypatch.setattr(clips, "base", lambda: b"no longer good")
    second, broke = asyncio.run(run(*going))
    saved = {path.name: path.read_bytes() for path in (tmp_path / "finds").iterdir()}
    assert broke == len(second.finds) > 0
    assert set(second.finds) == set(saved)
    name = next(name for name in second.finds if name.endswith("-timeout"))
    assert len(saved[name]) == len(clip_number(int(name.split("-")[1])))
    assert any("good-clip" in name for name in saved)
    assert (second.rounds, sum(second.answers.values())) == (2, second.clips)
    assert f"find: {second.finds[0]}" in lines


# Inputs that crashed a reader: an AV1 unit that consists of a header only.
READER_FINDS = [("av1", "0c"), ("av1", "12000c"), ("av1", "120034")]


@pytest.mark.parametrize(("codec", "packet"), READER_FINDS)
def test_packets_that_crashed_a_reader_are_rejected(codec: str, packet: str) -> None:
    with pytest.raises(Unplannable):
        reader_for(codec, b"").read(memoryview(bytes.fromhex(packet)))


@pytest.mark.skipif(
    sys.version_info >= (3, 14) or platform.machine() != "x86_64",
    reason="there is no atheris for this Python or processor (pyproject.toml)",
)
def test_readers_reject_packets_without_failing(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    seconds = max(1, pytestconfig.getoption("fuzz_seconds") // 4)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.readers", f"-max_total_time={seconds}", "-seed=1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,  # libFuzzer writes its findings to the working directory
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.iterdir()) == []

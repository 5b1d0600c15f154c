from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.machine.resources import usable_cores

ALL = len(os.sched_getaffinity(0))


def cores(folder: Path, own: str, files: dict[str, str]) -> int:
    """`usable_cores` with this content of /proc/self/cgroup and these files of control groups."""
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text)
    (folder / "own").write_text(own)
    return usable_cores(folder / "fs", folder / "own")


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        ),
        ("9:memory:/\n", {"memory/cpu.max": "100000 100000\n"}),
        ("", {}),
    ],
    ids=["no file", "no quota", "more than there are", "no quota, v1", "another controller", "no groups"],
)
def test_all_cores_count_without_a_smaller_quota(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    assert cores(tmp_path, own, files) == ALL


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}),
        ("0::/\n", {"cpu.max": "20000 100000\n"}),
        ("0::/pod/box\n", {"pod/cpu.max": "50000 50000", "pod/box/cpu.max": "max 100000"}),
        ("0::/host/only\n", {"cpu.max": "100000 100000"}),
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "90000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        ),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "90000", "cpu/a/cpu.cfs_period_us": "100000"}),
    ],
    ids=["one", "a fifth", "set further up", "group not mounted", "v1", "v1 by its short name"],
)
def test_quota_of_up_to_one_core_is_one_core(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    assert cores(tmp_path, own, files) == 1


def test_quota_of_one_and_a_half_cores_is_two_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2})
    assert cores(tmp_path, "0::/\n", {"cpu.max": "150000 100000"}) == 2


def test_cores_outside_the_affinity_mask_do_not_count(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores(tmp_path, "0::/\n", {}) == 1
    finally:
        os.sched_setaffinity(0, before)

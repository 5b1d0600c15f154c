"""Which folders are packages: the same for a server and for an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import PackageError
from service.packages.folders import MAX_VERSION, next_version, parse_version, scan_packages

NOT_VERSIONS = ["0", "007", "-1", "+1", " 1", "1.0", "1_0", "latest", "", "\u0663", "2147483648", "9" * 200]


@pytest.mark.parametrize(("name", "version"), [("1", 1), ("10", 10), (str(MAX_VERSION), MAX_VERSION)])
def test_version_is_a_decimal_without_leading_zeros(name: str, version: int) -> None:
    assert parse_version(name) == version


@pytest.mark.parametrize("name", NOT_VERSIONS)
def test_other_names_are_not_versions(name: str) -> None:
    assert parse_version(name) is None


def test_export_and_server_see_the_same_versions(tmp_path: Path) -> None:
    for name in ("007", "1", "latest"):
        (tmp_path / "walk" / name).mkdir(parents=True)
    assert [package.version for package in scan_packages(tmp_path).packages] == [1]
    assert next_version(tmp_path, "walk") == 2


def test_packages_are_sorted_by_name_and_descending_version(tmp_path: Path) -> None:
    for name in ("walk/2", "walk/10", "run/1"):
        (tmp_path / name).mkdir(parents=True)
    packages = scan_packages(tmp_path).packages
    assert [(item.name, item.version) for item in packages] == [("run", 1), ("walk", 10), ("walk", 2)]


def test_first_version_is_1(tmp_path: Path) -> None:
    assert next_version(tmp_path, "walk") == 1


def test_file_named_like_a_version_is_no_package_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "walk" / "1").mkdir(parents=True)
    (tmp_path / "walk" / "3").touch()
    assert [package.version for package in scan_packages(tmp_path).packages] == [1]
    assert next_version(tmp_path, "walk") == 4


def test_no_version_follows_the_highest_possible_one(tmp_path: Path) -> None:
    (tmp_path / "walk" / str(MAX_VERSION)).mkdir(parents=True)
    with pytest.raises(PackageError, match=f"version {MAX_VERSION} exists, the highest possible one"):
        next_version(tmp_path, "walk")


def test_folder_without_packages_names_what_could_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PackageError, match=r"no model package in it .*; loop: the folder cannot be read"):
        scan_packages(tmp_path)

"""The packages in the folder of models and in that of taught models."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.errors import PackageError
from service.pipeline.models.listing import PackageListing

pytestmark = pytest.mark.anyio


def make(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True)


@pytest.mark.parametrize("taught", ["before", "taught"])
async def test_models_of_the_first_folder_are_provided_and_the_others_taught(
    tmp_path: Path, taught: str
) -> None:
    root = tmp_path / "models"
    make(root / "one/1", root / "both/2", tmp_path / taught / "both/7", tmp_path / taught / "hues/3")
    listing = PackageListing(root, tmp_path / taught)
    await listing.scan()
    assert [name for name in ("one", "both", "hues", "none") if listing.is_provided(name)] == ["one", "both"]
    assert listing.taught_names() == {"hues"}
    assert listing.versions() == {("one", 1), ("both", 2), ("hues", 3)}


async def test_versions_are_listed_with_the_highest_first(tmp_path: Path) -> None:
    make(*(tmp_path / "one" / version for version in ("2", "10", "1")))
    listing = PackageListing(tmp_path, tmp_path / "no such folder")
    await listing.scan()
    assert [package.version for package in listing.packages["one"]] == [10, 2, 1]


async def test_folder_without_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError):
        await PackageListing(tmp_path).scan()


async def test_folder_that_cannot_be_read_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "one/1")
    (tmp_path / "loop").symlink_to("loop")
    listing = PackageListing(tmp_path)
    with caplog.at_level(logging.ERROR):
        await listing.scan()
        first = list(caplog.records)
        await listing.scan()
    assert list(listing.unreadable) == ["loop"]
    assert caplog.records == first
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["model loop is refused"]

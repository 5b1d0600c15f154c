"""The network that `blvnet train` builds for a name and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_export.commands import train as command
from model_export.commands.options.train_options import training_config
from model_export.networks.config import ModelConfig, Stem
from model_export.training.config import Augmentation
from service.errors import BlvnetError
from tests.model_export.command import blvnet


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("blvnet-tam-50-a2-b4-f8x2", (), Stem.SHARED),
        ("blvnet-101-f8x2", (), Stem.SHARED),
        ("blvnet-tam-50-f8x2", ("--stem", "dual"), Stem.DUAL),
        ("blvnet-tam-50-f8x2-dual", (), Stem.DUAL),
        ("blvnet-tam-mini", (), Stem.DUAL),
        ("blvnet-tam-mini-shared", (), Stem.SHARED),
        ("tam-resnet-50-f8", (), Stem.SHARED),
    ],
)
def test_published_name_is_the_published_network(
    arch: str, options: tuple[str, ...], expected: Stem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("train/up", "train/down", "val/up", "val/down"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "video.mp4").touch()
    built = []

    def stop(config: ModelConfig, *_: Any) -> None:
        built.append(config)
        raise BlvnetError("enough")

    monkeypatch.setattr(command, "build", stop)
    options = ("--dataset", "folder", "--arch", arch, *options)
    result = blvnet("train", "--data", tmp_path, "--out", tmp_path / "run", *options)
    assert result.stderr.endswith("enough\n")
    assert [config.stem for config in built] == [expected]


def test_only_given_augmentation_has_its_default_sizes() -> None:
    given = {"epochs": 2, "geometry": 0.6, "cutout": 1.0, "shift": 0.5}
    found = training_config(given, augmentation=False).augmentation
    default = Augmentation()
    assert (found.geometry, found.cutout, found.shift) == (0.6, 1.0, 0.5)
    assert (found.zoom, found.cutout_side) == (default.zoom, default.cutout_side)
    assert (found.brightness, found.noise, found.mirror) == (0, 0, 0)
    assert training_config({"epochs": 2}, augmentation=False).augmentation == Augmentation.none()

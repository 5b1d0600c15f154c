"""What `blvnet train` makes of a name and its options, before any clip is read."""

from __future__ import annotations

import pytest

from model_export.commands.train import _stem
from model_export.config import Stem
from model_export.networks.names import parse_architecture


@pytest.mark.parametrize(
    ("arch", "asked", "expected"),
    [
        ("blvnet-tam-50", None, Stem.DUAL),
        ("blvnet-101", None, Stem.DUAL),
        ("blvnet-tam-50", Stem.SHARED, Stem.SHARED),
        ("blvnet-tam-50-shared", None, Stem.SHARED),
        ("blvnet-tam-mini", None, Stem.DUAL),
        ("tam-resnet-50", None, Stem.SHARED),
    ],
)
def test_new_networks_have_the_dual_stem_unless_told_otherwise(
    arch: str, asked: Stem | None, expected: Stem
) -> None:
    config = parse_architecture(arch, num_classes=2, frames=8, stem=_stem(arch, asked))
    assert config.stem is expected
    assert parse_architecture(config.architecture, num_classes=2, frames=8).stem is expected

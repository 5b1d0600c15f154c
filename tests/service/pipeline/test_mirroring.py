"""`crops=10` with the bundled model, whose labels tell left from right, on generated videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_export.synthetic.dataset import plan, write_dataset
from model_export.synthetic.labels import LABELS, MIRRORED
from service.engines.providers import Provider
from service.errors import InvalidParameter, RequestError
from service.offline import classify_files
from service.packages.folders import bundled_models, scan_packages
from service.packages.manifest import read_manifest
from service.pipeline.classification import Query
from service.pipeline.core_config import CoreConfig
from tests.support.server import running_server
from tests.support.tiny_models import write_package


def test_bundled_package_has_the_mirror_of_every_label() -> None:
    manifest = read_manifest(scan_packages(bundled_models()).packages[0].folder)
    assert manifest.mirror is not None
    mirrored = {
        label: manifest.labels[index] for label, index in zip(manifest.labels, manifest.mirror, strict=True)
    }
    assert mirrored == MIRRORED


def test_directional_labels_are_right_with_mirrored_views(tmp_path: Path) -> None:
    directional = {label for label in LABELS if MIRRORED[label] != label}
    plans = [one for one in plan(2 * len(LABELS), 5, {"test": 1.0}) if one.label in directional]
    files = sorted(write_dataset(tmp_path / "videos", plans, jobs=1))
    config = CoreConfig(provider=Provider.CPU, decode_workers=1)
    for path, result in classify_files(config, files, Query(crops=10)):
        assert not isinstance(result, RequestError), result
        assert result.predictions[0].label == path.parent.name
    assert len(files) == 8


def test_model_of_unknown_symmetry_gives_422_over_http(tmp_path: Path, red_clip: bytes) -> None:
    write_package(tmp_path, mirror=None)
    with running_server(tmp_path) as server:
        refused = server.post(red_clip, crops=10)
        assert (refused.status_code, refused.json()["code"]) == (422, InvalidParameter.code)
        assert "which label each label becomes in a mirrored clip" in refused.json()["detail"]
        assert server.post(red_clip, crops=5).is_success


@pytest.mark.parametrize("crops", [1, 3, 5])
def test_views_without_mirrors_need_no_symmetry(tmp_path: Path, red_clip: bytes, crops: int) -> None:
    write_package(tmp_path, mirror=None)
    (tmp_path / "clip.mp4").write_bytes(red_clip)
    config = CoreConfig(models=tmp_path, provider=Provider.CPU, decode_workers=1)
    [(_, result)] = classify_files(config, [tmp_path / "clip.mp4"], Query(crops=crops))
    assert not isinstance(result, RequestError)

"""The model card of an exported package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_export.export.card import model_card, read_evaluation
from model_export.export.plan import ExportRequest, plan_export
from model_export.progress import ProgressReporter
from service.errors import BlvnetError
from service.packages.manifest import Manifest, read_manifest
from tests.support.tiny_models import write_package

PROVENANCE = {
    "checkpoint": "best.pt",
    "checkpoint_sha256": "ab" * 32,
    "tools": {"torch": "2.13.0"},
    "training": {"dataset": "folder", "step": 1200, "best_top1": 0.9, "init": "blvnet-tam-mini"},
}
EVALUATION = {
    "clips": 34,
    "top1": 0.95,
    "top1_interval": [0.81, 0.99],
    "top5": 1.0,
    "mean_class": 0.94,
    "per_group": {"E": {"top1": 0.9, "clips": 17}},
    "per_class": {"red": 0.5, "green": 1.0, "blue": None},
}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_package(tmp_path, version=1)
    found = read_manifest(next(tmp_path.glob("*/1")))
    return found.model_copy(update={"provenance": PROVENANCE, "parity": {"logits": 1.5e-7}, "gmacs": 0.23})


def test_card_tells_origin_accuracy_labels_and_limits(manifest: Manifest) -> None:
    card = model_card(manifest, 1234567, EVALUATION)
    for text in (
        f"# Model card: {manifest.name}, version 1",
        "1,234,567 parameters",
        "- initial weights: blvnet-tam-mini",
        "- best top-1 on the validation split in training: 90.0 %",
        "| top-1 of 34 clips | 95.0 % |\n| 95 % interval | 81.0 to 99.0 % |",
        "| group E, 17 clips | 90.0 % |",
        "| lowest: red | 50.0 % |",
        "by 1.5e-07 of the largest logit",
        "0. red",
    ):
        assert text in card
    assert "blue |" not in card  # a label without clips has no accuracy


def test_card_without_an_evaluation_says_how_to_add_one(manifest: Manifest) -> None:
    assert "`blvnet export --evaluation FILE`" in model_card(manifest, 1, None)


def test_groups_cannot_change_the_structure_of_the_card(manifest: Manifest) -> None:
    groups = {"a | b\n<b>": {"top1": 0.5, "clips": 2}}
    card = model_card(manifest, 1, EVALUATION | {"per_group": groups})
    assert "| group a \\| b &lt;b>, 2 clips | 50.0 % |" in card


def test_labels_cannot_change_the_structure_of_the_card(manifest: Manifest) -> None:
    labels = ("a|b", "<script>", "two\nlines")
    card = model_card(manifest.model_copy(update={"labels": labels}), 1, None)
    assert "0. a\\|b\n1. &lt;script>\n2. two lines" in card


def test_notes_follow_the_description_of_the_network(manifest: Manifest) -> None:
    card = model_card(manifest, 1, None, "## Intended use\n\nDemonstrations.")
    assert "\n\n## Intended use\n\nDemonstrations.\n\n## Training\n" in card


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_notes_that_cannot_be_read_are_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    if content is not None:
        path.write_bytes(content)
    request = ExportRequest(checkpoint=tmp_path / "best.pt", models=tmp_path, notes=path)
    with pytest.raises(BlvnetError, match=r"notes\.md (cannot be read|is not UTF-8 text)") as caught:
        plan_export(request, ProgressReporter())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"clips": 3})])
def test_other_files_are_no_evaluation(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BlvnetError, match=r"blvnet evaluate --json"):
        read_evaluation(path)


@pytest.mark.parametrize(
    "document",
    [
        {"clips": 1, "top1": "high"},
        {"clips": 1, "top1": None},
        {"clips": 1, "top1": 0.5, "per_class": [1]},
        {"clips": 1, "top1": 0.5, "per_group": {"a": 3}},
        {"clips": 1, "top1": 0.5, "top1_interval": 3},
        {"clips": 1},
        [1],
    ],
    ids=json.dumps,
)
def test_file_with_other_values_is_not_an_evaluation(tmp_path: Path, document: object) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(document))
    with pytest.raises(BlvnetError, match="is not the output of blvnet evaluate --json"):
        read_evaluation(tmp_path / "evaluation.json")


def test_nested_brackets_are_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("[" * 200_000)
    with pytest.raises(BlvnetError, match="cannot be read as JSON: write it with"):
        read_evaluation(tmp_path / "evaluation.json")

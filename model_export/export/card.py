"""The model card of an exported package, from its manifest, its training and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from model_export.metrics import Metric
from service.errors import BlvnetError
from service.packages.manifest import Manifest, Scores

CARD_FILE = "MODEL_CARD.md"
SHOWN_CLASSES = 10  # with the lowest accuracy
SHOWN_LABELS = 400


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read the output of `blvnet evaluate --json`.

    Raises:
        BlvnetError: the file cannot be read, or has other contents.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise BlvnetError(f"{path} cannot be read as JSON: write it with blvnet evaluate --json") from exc
    try:
        shown = _Evaluation.model_validate(document)
    except ValidationError as exc:
        raise BlvnetError(f"{path} is not the output of blvnet evaluate --json") from exc
    if not {"top1", "map"} & shown.model_fields_set:
        raise BlvnetError(f"{path} is not the output of blvnet evaluate --json")
    checked: dict[str, Any] = document
    return checked


class _Group(BaseModel):
    top1: float
    clips: int


class _Evaluation(BaseModel):
    """The figures of an evaluation that the card shows."""

    clips: int
    top1: float = 0
    map: float = 0
    top5: float = 0
    mean_class: float = 0
    hit1: float = 0
    top1_interval: tuple[float, float] = (0, 1)
    per_class: dict[str, float | None] = {}
    per_group: dict[str, _Group] = {}


def model_card(
    manifest: Manifest, parameters: int, evaluation: dict[str, Any] | None, notes: str = ""
) -> str:
    """The card as Markdown; `notes` follow the description of the network."""
    inputs = ", ".join(
        f"`{item.name}` ({item.frames.value} frames, {item.size} x {item.size})" for item in manifest.inputs
    )
    network = (
        f"`{manifest.architecture}` ([arXiv 1912.00869](https://arxiv.org/abs/1912.00869)), "
        f"{manifest.precision}, {parameters:,} parameters, {manifest.gmacs:.2f} billion multiply-accumulates "
        f"a clip. It takes {manifest.frames} frames of a video, sampled {manifest.sampling.value}: {inputs}."
    )
    limitations = (
        "- It always returns one of its labels, also for a video that shows none of them."
        if manifest.scores is Scores.SOFTMAX
        else "- A video may show several of its labels: each score is the probability of that label alone.",
        f"- By default it sees the centre square of {manifest.frames} frames.",
        "- Its accuracy for other cameras, people and places than those of its evaluation is not known.",
    )
    sections = [
        f"# Model card: {manifest.name}, version {manifest.version}",
        network,
        *([notes] if notes else []),
        "## Training",
        "\n".join(f"- {line}" for line in _training(manifest.provenance)),
        "## Accuracy",
        _accuracy(evaluation),
        f"The graph differs from PyTorch by {manifest.parity['logits']:.1e} of the largest logit.",
        "## Labels",
        _labels(manifest),
        "## Limitations",
        "\n".join(limitations),
    ]
    return "\n\n".join(sections) + "\n"


def _training(provenance: dict[str, Any]) -> list[str]:
    training = provenance.get("training", {})
    lines = [f"checkpoint `{provenance['checkpoint']}` (SHA-256 {provenance['checkpoint_sha256']})"]
    if "dataset" in training:
        lines.append(f"data set: {training['dataset']}")
    if "init" in training:
        lines.append(f"initial weights: {training['init']}")
    if "step" in training:
        lines.append(f"steps of the optimiser: {training['step']:,}")
    for metric in Metric:
        if metric.best_key in training:
            best = f"{100 * training[metric.best_key]:.1f} %"
            lines.append(f"best {metric.shown} on the validation split in training: {best}")
    tools = ", ".join(f"{name} {version}" for name, version in provenance.get("tools", {}).items())
    return [*lines, f"tools: {tools}"]


def _accuracy(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "Not given: `blvnet export --evaluation FILE` adds the output of `blvnet evaluate --json`."
    name, value = ("top-1", evaluation["top1"]) if "top1" in evaluation else ("mAP", evaluation["map"])
    rows = [(f"{name} of {evaluation['clips']} clips", value)]
    for key, title in (("top5", "top-5"), ("mean_class", "mean of classes"), ("hit1", "best label right")):
        if key in evaluation:
            rows.append((title, evaluation[key]))
    rows += [
        (f"group {_cell(group)}, {entry['clips']} clips", entry["top1"])
        for group, entry in evaluation.get("per_group", {}).items()
    ]
    classes = [
        (label, share) for label, share in evaluation.get("per_class", {}).items() if share is not None
    ]
    lowest = sorted(classes, key=lambda item: item[1])[:SHOWN_CLASSES]
    rows += [(f"lowest: {_cell(label)}", share) for label, share in lowest]
    lines = [f"| {title} | {100 * share:.1f} % |" for title, share in rows]
    interval = evaluation.get("top1_interval")
    if interval:
        lines.insert(1, f"| 95 % interval | {100 * interval[0]:.1f} to {100 * interval[1]:.1f} % |")
    return "\n".join(("| | |", "|---|---:|", *lines))


def _labels(manifest: Manifest) -> str:
    shown = [f"{index}. {_cell(label)}" for index, label in enumerate(manifest.labels[:SHOWN_LABELS])]
    more = len(manifest.labels) - SHOWN_LABELS
    return "\n".join([*shown, *([f"and {more} more, see `model.json`"] if more > 0 else [])])


def _cell(text: str) -> str:
    """Text without characters that end a table cell or start HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

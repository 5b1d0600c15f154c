"""Networks with some of the labels that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.config import ModelConfig

CLASSIFIER = ("fc.weight", "fc.bias")


def select_labels(
    config: ModelConfig, weights: Mapping[str, Tensor], training: Mapping[str, Any], labels: Sequence[str]
) -> tuple[ModelConfig, dict[str, Tensor], dict[str, Any]]:
    """Keep the outputs of `labels` of a network, in their order.

    Args:
        config: the network's configuration.
        weights: its `state_dict()`.
        training: what its checkpoint records, with its labels and their mirror images.
        labels: labels to keep. Those whose mirror image is left out have none.

    Raises:
        CheckpointError: the network has no such label, or its checkpoint records none.
    """
    known: Sequence[str] = training.get("labels", ())
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise CheckpointError(
            f"the network has no label {unknown[0]!r}" if known else "the checkpoint records no labels"
        )
    rows = [known.index(label) for label in labels]
    place = {row: index for index, row in enumerate(rows)}
    selected = {name: weight[rows] if name in CLASSIFIER else weight for name, weight in weights.items()}
    recorded = dict(training) | {"labels": list(labels)}
    if "mirrored" in training:
        recorded["mirrored"] = [place.get(training["mirrored"][row]) for row in rows]
    return replace(config, num_classes=len(labels)), selected, recorded

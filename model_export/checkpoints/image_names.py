"""Names of ResNet weights in other projects, translated to those of torchvision, which our layouts know.

| file | what differs |
|---|---|
| torchvision | nothing; the tensors may be the whole file |
| timm | `model`, `state_dict` or `state_dict_ema` around the tensors of a training checkpoint; safetensors |
| torch.compile, Lightning | the prefixes `_orig_mod.` and `model.` |
| mmaction2 | `backbone.`, `conv1.conv` and `conv1.bn` in place of `conv1` and `bn1`, `cls_head.fc_cls` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from model_export.checkpoints.torch_file import CheckpointError

Value = TypeVar("Value")

# Keys under which a training checkpoint holds its tensors; the first one wins.
CONTAINERS = ("state_dict", "state_dict_ema", "model_state", "model")
PREFIXES = ("_orig_mod.", "model.")
MMACTION_HEAD = "cls_head.fc_cls."
MMACTION = (
    (re.compile(r"conv(\d)\.conv\.(?:net\.)?"), r"conv\1."),
    (re.compile(r"conv(\d)\.bn\."), r"bn\1."),
    (re.compile(r"downsample\.conv\."), "downsample.0."),
    (re.compile(r"downsample\.bn\."), "downsample.1."),
)


def open_container(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a file, and everything else in it."""
    key = next((key for key in CONTAINERS if isinstance(document.get(key), dict)), None)
    if key is None:
        return dict(document), {}
    return document[key], {name: value for name, value in document.items() if name != key}


def translate(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the tensors to torchvision's names; tensors with unknown names keep theirs.

    Raises:
        CheckpointError: they belong to a timm network with a deep stem, which our networks do not have.
    """
    names = list(weights)
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    if any(name.startswith("backbone.conv1.conv.") for name in names):
        names = [_of_mmaction(name) for name in names]
    if any(name.startswith("conv1.0.") for name in names) and "layer1.0.conv1.weight" in names:
        raise CheckpointError(
            "the network has a stem of three convolutions (such as timm's resnet50d); use weights with one "
            "7 x 7 convolution, such as timm's resnet50"
        )
    return dict(zip(names, weights.values(), strict=True))


def _of_mmaction(name: str) -> str:
    if name.startswith(MMACTION_HEAD):
        return f"fc.{name.removeprefix(MMACTION_HEAD)}"
    name = name.removeprefix("backbone.")
    for pattern, replacement in MMACTION:
        name = pattern.sub(replacement, name)
    return name

"""Layouts of published checkpoints: their tensor names, and what names and shapes reveal about the network.

    blvnet-tam  IBM/bLVNet-TAM: names start with `baseline_model.`; the classifier is `new_fc` after dropout,
                `baseline_model.fc` without; taps are `tam.{prev,curr,next}.weight` for three taps,
                `tam.blending_layers.J.weight` for any other number, each (C, 1, 1, 1)
    blresnet    IBM/BigLittleNet on ImageNet: the same without the prefix, taps and dropout
    resnet      IBM/action-recognition-pytorch, and torchvision: `conv1`, `layer1.0.conv1`, ..., `fc`; taps
                are `tam.{prev_se,curr_se,next_se}.fc1.weight` or `tam.blending_layers.J.fc1.weight`

Every name may start with `module.` (trained in parallel), and the tensors may lie under `state_dict` (a
training checkpoint). The tensors do not reveal frames, input size, dropout probability and temporal pooling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.blvnet import BLRESNETS
from model_export.networks.config import MINI, Family, ModelConfig, Stem
from model_export.networks.residual import BackboneSpec
from model_export.networks.resnet import RESNETS

PARALLEL = "module."
BACKBONE = "baseline_model."
TAP_NAMES = ("prev", "curr", "next")
MAX_RATIO = 64  # largest alpha and beta that are tried


class Layout(StrEnum):
    """The naming scheme of a file's tensors."""

    OWN = "own"
    BLVNET_TAM = "blvnet-tam"
    BLRESNET = "blresnet"
    RESNET = "resnet"


@dataclass(frozen=True)
class Naming:
    """How one file names the tensors of our networks."""

    layout: Layout
    parallel: bool = False
    dropout_head: bool = False

    def names(self, key: str, taps: int) -> list[str]:
        """The file's names for one of our tensors: a single name, or one per tap of a TAM."""
        if self.layout is Layout.OWN:
            return [key]
        key = key.removeprefix("stem.")
        prefix = BACKBONE if self.layout is Layout.BLVNET_TAM else ""
        if key.startswith("fc."):
            names = [f"new_{key}" if self.dropout_head else prefix + key]
        elif key.endswith("tam.taps"):
            wrapped = self.layout is Layout.RESNET
            if taps == len(TAP_NAMES):
                weights = [f"{tap}_se.fc1.weight" if wrapped else f"{tap}.weight" for tap in TAP_NAMES]
            else:
                weights = [f"blending_layers.{j}.{'fc1.' if wrapped else ''}weight" for j in range(taps)]
            names = [prefix + key.removesuffix("taps") + weight for weight in weights]
        else:
            names = [prefix + key]
        return [PARALLEL + name for name in names] if self.parallel else names


@dataclass(frozen=True)
class DetectedNetwork:
    """What the tensors of a file show about their network.

    Attributes:
        families: the families with these tensors (those of TSN and TSM are the same).
        depth: "18" .. "152".
        classes: outputs of the classifier.
        taps: number of taps of a TAM; None for a network without TAMs.
        alpha: alpha of a big-little network, else None.
        betas: values up to `MAX_RATIO` that give these little branches (at depth 50, all from 3 on do).
        dropout_head: whether the classifier was trained after dropout, if the layout shows it.
    """

    families: tuple[Family, ...]
    depth: str
    classes: int
    taps: int | None = None
    alpha: int | None = None
    betas: tuple[int, ...] = ()
    dropout_head: bool | None = None

    def describe(self) -> str:
        """The network in a few words, for messages."""
        parts = [f"{' or '.join(self.families)}, depth {self.depth}"]
        if self.alpha is not None:
            parts.append(f"alpha {self.alpha}, beta {self.beta_range()}")
        if self.taps is not None:
            parts.append(f"{self.taps} taps")
        return ", ".join((*parts, f"{self.classes} classes"))

    def beta_range(self) -> str | None:
        """`4`, or `3 to 64` if several betas give the same network; None without a little branch."""
        if not self.betas:
            return None
        return f"{self.betas[0]}" if len(self.betas) == 1 else f"{self.betas[0]} to {self.betas[-1]}"

    def architectures(self) -> list[str]:
        """Values of `--arch` for these tensors, without the frames, which the tensors do not show."""
        options = ""
        if self.alpha is not None:
            beta = 4 if 4 in self.betas else self.betas[0]
            options = f"-a{self.alpha}-b{beta}"
        if self.taps not in (None, 3):
            options += f"-blend{self.taps}"
        return [f"{family}-{self.depth}{options}" for family in self.families]

    def contradictions(self, config: ModelConfig) -> list[str]:
        """The differences from `config`, such as `depth 101, not 50`, with the file's value first."""
        different = []
        if config.family not in self.families:
            different.append(f"{' or '.join(self.families)}, not {config.family}")
        if config.depth != self.depth:
            different.append(f"depth {self.depth}, not {config.depth}")
        if self.taps not in (None, config.taps) and config.family.has_tam:
            different.append(f"{self.taps} taps, not {config.taps}")
        if config.family.big_little and self.alpha is not None:
            if config.alpha != self.alpha:
                different.append(f"alpha {self.alpha}, not {config.alpha}")
            if self.betas and config.beta not in self.betas:
                different.append(f"beta {self.beta_range()}, not {config.beta}")
            if config.stem is not Stem.SHARED:
                different.append(f"a {Stem.SHARED} stem, not a {config.stem} one")
        if config.num_classes != self.classes:
            different.append(f"{self.classes} classes, not {config.num_classes}")
        return different


def detect(weights: Mapping[str, Tensor]) -> tuple[Naming, DetectedNetwork]:
    """Layout and network of published weights.

    Raises:
        CheckpointError: the tensors are not those of a supported network.
    """
    parallel = bool(weights) and all(name.startswith(PARALLEL) for name in weights)
    bare = {name.removeprefix(PARALLEL) if parallel else name: tensor for name, tensor in weights.items()}
    has_prefix = any(name.startswith(BACKBONE) for name in bare)
    shapes = {name.removeprefix(BACKBONE): tuple(tensor.shape) for name, tensor in bare.items()}
    dropout_head = _any_name(shapes, r"new_fc\.")
    if _any_name(shapes, r"[bl]_conv0\.|layer\d\.big\."):
        layout = Layout.BLVNET_TAM if has_prefix else Layout.BLRESNET
        return Naming(layout, parallel, dropout_head), _detect_big_little(shapes, layout, dropout_head)
    if has_prefix or not _any_name(shapes, r"layer1\.0\."):
        raise CheckpointError(
            "the tensor names are those of none of the supported layouts: bLVNet-TAM "
            "(baseline_model.layer1.big...), bLResNet (layer1.big...), and ResNet, TAM-ResNet and I3D-ResNet "
            "(layer1.0.conv1...)"
        )
    return Naming(Layout.RESNET, parallel), _detect_resnet(shapes)


Shapes = Mapping[str, tuple[int, ...]]
"""Tensor names, without `module.` and `baseline_model.`, and their shapes."""


def _detect_big_little(shapes: Shapes, layout: Layout, dropout_head: bool) -> DetectedNetwork:
    merged = (_count(shapes, rf"layer{level}\.big\.(\d+)\.") + 1 for level in (1, 2, 3))
    blocks = (*merged, _count(shapes, r"layer4\.(\d+)\."))
    depth = _depth(blocks, {depth: spec for depth, spec in BLRESNETS.items() if depth != MINI})
    littles = tuple(_count(shapes, rf"layer{level}\.little\.(\d+)\.") for level in (1, 2, 3))
    ratios = range(1, MAX_RATIO + 1)
    betas = tuple(beta for beta in ratios if littles == tuple(max(1, b // beta - 1) for b in blocks[:3]))
    widths = (_shape(shapes, "l_conv0.weight")[0], _shape(shapes, "layer3.little_e.0.weight")[1])
    alphas = [alpha for alpha in ratios if widths == (64 // alpha, 1024 // alpha)]
    if not alphas or not betas:
        raise CheckpointError(
            f"no alpha and beta give little branches of {littles} blocks, {widths} channels"
        )
    taps = _taps(shapes)
    return DetectedNetwork(
        families=(Family.BLVNET_TAM,) if taps else (Family.BLVNET, Family.BLVNET_TSM),
        depth=depth,
        classes=_shape(shapes, "new_fc.weight" if dropout_head else "fc.weight")[0],
        taps=taps,
        alpha=alphas[0],
        betas=betas,
        dropout_head=dropout_head if layout is Layout.BLVNET_TAM else None,
    )


def _detect_resnet(shapes: Shapes) -> DetectedNetwork:
    bottlenecks = _any_name(shapes, r"layer1\.0\.conv3\.")
    published = {
        depth: spec
        for depth, spec in RESNETS.items()
        if depth != MINI and (spec.stages[0].outputs != spec.stages[0].width) == bottlenecks
    }
    depth = _depth(tuple(_count(shapes, rf"layer{level}\.(\d+)\.") for level in (1, 2, 3, 4)), published)
    taps = _taps(shapes)
    match len(_shape(shapes, "conv1.weight")) == 5, bool(taps):
        case True, True:
            families: tuple[Family, ...] = (Family.TAM_I3D_RESNET,)
        case True, False:
            families = (Family.I3D_RESNET,)
        case False, True:
            families = (Family.TAM_RESNET,)
        case _:
            families = (Family.TSN_RESNET, Family.TSM_RESNET)
    return DetectedNetwork(families, depth, classes=_shape(shapes, "fc.weight")[0], taps=taps)


def _any_name(shapes: Shapes, pattern: str) -> bool:
    """Whether any name starts with the pattern."""
    return any(re.match(pattern, name) for name in shapes)


def _count(shapes: Shapes, pattern: str) -> int:
    """Number of different indices, the pattern's group, in the names."""
    return len({int(match[1]) for name in shapes if (match := re.match(pattern, name))})


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of a tensor that every network of its kind has."""
    if name not in shapes:
        raise CheckpointError(f"there is no tensor {name}, so this is not a supported network")
    return shapes[name]


def _taps(shapes: Shapes) -> int | None:
    """The largest number of taps of any TAM, so that one with a missing tensor is reported as incomplete."""
    if _any_name(shapes, r"(.*\.)?tam\.(prev|curr|next)"):
        return len(TAP_NAMES)
    return _count(shapes, r"(?:.*\.)?tam\.blending_layers\.(\d+)\.") or None


def _depth(blocks: tuple[int, ...], published: Mapping[str, BackboneSpec]) -> str:
    """The depth of the published network with these blocks."""
    for depth, spec in published.items():
        if blocks == spec.blocks:
            return depth
    raise CheckpointError(
        f"the layers have {blocks} blocks, which is none of the depths {', '.join(published)}"
    )

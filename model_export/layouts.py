"""Published checkpoint layouts: what tensors are called in them, and what names and shapes tell.

    blvnet-tam      IBM/bLVNet-TAM: everything below `baseline_model.`, the head behind dropout is `new_fc`,
                    without dropout `baseline_model.fc`; taps are `tam.{prev,curr,next}.weight` for three,
                    `tam.blending_layers.J.weight` for any other number, each (C, 1, 1, 1)
    blresnet        IBM/BigLittleNet on ImageNet: the same without prefix, taps and dropout
    resnet          IBM/action-recognition-pytorch, and torchvision: `conv1`, `layer1.0.conv1`, ..., `fc`;
    taps are
                    `tam.{prev_se,curr_se,next_se}.fc1.weight` or `tam.blending_layers.J.fc1.weight`

Each may carry `module.` in front of every name (trained in parallel) and lie below `state_dict` (a training
checkpoint). Frames, input size, dropout probability and temporal pooling leave no trace in tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from model_export.config import MINI, Family, ModelConfig, Stem
from model_export.networks.blvnet import PLANS
from model_export.networks.resnet import BLOCKS
from service.errors import BlvnetError

PARALLEL = "module."
BACKBONE = "baseline_model."
TAP_NAMES = ("prev", "curr", "next")


class CheckpointError(BlvnetError):
    """A file that is no checkpoint, or not of the network that was asked for."""


class Layout(StrEnum):
    """Whose names a file's tensors have."""

    OWN = "own"
    BLVNET_TAM = "blvnet-tam"
    BLRESNET = "blresnet"
    RESNET = "resnet"


@dataclass(frozen=True)
class Found:
    """What the tensors of a file say about their network; what they cannot say is in none of these fields.

    Attributes:
        families: the networks that have these tensors (TSN and TSM have the same).
        depth: "18" .. "152".
        classes: outputs of the classifier.
        taps: of the TAMs; None where there are none.
        alpha: of a big-little network, else None.
        betas: those up to 64 that give these little branches (depth 50 is the same for all from 3 on).
        dropout_head: whether the classifier was trained behind dropout, where the layout tells.
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
        """`4`, or `3 to 64` where several give the same network; None where there is no little branch."""
        if not self.betas:
            return None
        return f"{self.betas[0]}" if len(self.betas) == 1 else f"{self.betas[0]} to {self.betas[-1]}"

    def architectures(self) -> list[str]:
        """Names that `--arch` takes for these tensors, without the frames, which they do not tell."""
        options = ""
        if self.alpha is not None:
            beta = 4 if 4 in self.betas else self.betas[0]
            options = f"-a{self.alpha}-b{beta}"
        if self.taps not in (None, 3):
            options += f"-blend{self.taps}"
        return [f"{family}-{self.depth}{options}" for family in self.families]

    def contradictions(self, config: ModelConfig) -> list[str]:
        """What `config` says otherwise, as `depth 101, not 50`: found first, asked for second."""
        told = []
        if config.family not in self.families:
            told.append(f"{' or '.join(self.families)}, not {config.family}")
        if config.depth != self.depth:
            told.append(f"depth {self.depth}, not {config.depth}")
        if self.taps not in (None, config.taps) and config.family.aggregates:
            told.append(f"{self.taps} taps, not {config.taps}")
        if config.family.two_streams and self.alpha is not None:
            if config.alpha != self.alpha:
                told.append(f"alpha {self.alpha}, not {config.alpha}")
            if self.betas and config.beta not in self.betas:
                told.append(f"beta {self.beta_range()}, not {config.beta}")
            if config.stem is not Stem.SHARED:
                told.append(f"a {Stem.SHARED} stem, not a {config.stem} one")
        if config.num_classes != self.classes:
            told.append(f"{self.classes} classes, not {config.num_classes}")
        return told


@dataclass(frozen=True)
class Naming:
    """How one file calls the tensors that this project calls otherwise."""

    layout: Layout
    parallel: bool = False
    dropout_head: bool = False

    def names(self, key: str, taps: int) -> list[str]:
        """The file's names for one of ours: one, or one per tap of a TAM."""
        if self.layout is Layout.OWN:
            return [key]
        key = key.removeprefix("stem.")
        if key.startswith("fc."):
            names = [("new_" + key) if self.dropout_head else self._prefix() + key]
        elif key.endswith("tam.taps"):
            names = [self._prefix() + key.removesuffix("taps") + name for name in self._taps(taps)]
        else:
            names = [self._prefix() + key]
        return [PARALLEL + name for name in names] if self.parallel else names

    def _prefix(self) -> str:
        return BACKBONE if self.layout is Layout.BLVNET_TAM else ""

    def _taps(self, taps: int) -> list[str]:
        wrapped = self.layout is Layout.RESNET
        if taps == len(TAP_NAMES):
            return [f"{name}_se.fc1.weight" if wrapped else f"{name}.weight" for name in TAP_NAMES]
        return [f"blending_layers.{j}.{'fc1.' if wrapped else ''}weight" for j in range(taps)]


@dataclass(frozen=True)
class Tensors:
    """What detection looks at: names, without `module.` and `baseline_model.`, and shapes."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that every network of its kind has."""
        if name not in self.shapes:
            raise CheckpointError(f"there is no tensor {name}, so this is no network that can be read here")
        return self.shapes[name]

    def count(self, pattern: str) -> int:
        """How many indices, from 0 on, follow the pattern's text."""
        indices = {int(match[1]) for name in self.shapes if (match := re.match(pattern, name))}
        return len(indices)

    def has(self, pattern: str) -> bool:
        """Whether any name begins so."""
        return any(re.match(pattern, name) for name in self.shapes)


def recognise(weights: Mapping[str, Tensor]) -> tuple[Naming, Found]:
    """Layout and network of published weights.

    Raises:
        CheckpointError: the tensors are those of no network that is known here.
    """
    parallel = bool(weights) and all(name.startswith(PARALLEL) for name in weights)
    bare = {name.removeprefix(PARALLEL) if parallel else name: tensor for name, tensor in weights.items()}
    backbone = any(name.startswith(BACKBONE) for name in bare)
    tensors = Tensors({name.removeprefix(BACKBONE): tuple(tensor.shape) for name, tensor in bare.items()})
    dropout_head = tensors.has(r"new_fc\.")
    if tensors.has(r"[bl]_conv0\.|layer\d\.big\."):
        layout = Layout.BLVNET_TAM if backbone else Layout.BLRESNET
        return Naming(layout, parallel, dropout_head), _big_little(tensors, layout, dropout_head)
    if backbone or not tensors.has(r"layer1\.0\."):
        raise CheckpointError(
            "its tensors are named like none of the layouts that can be read: bLVNet-TAM "
            "(baseline_model.layer1.big...), bLResNet (layer1.big...), and ResNet, TAM-ResNet and I3D-ResNet "
            "(layer1.0.conv1...)"
        )
    return Naming(Layout.RESNET, parallel), _resnet(tensors)


def _big_little(tensors: Tensors, layout: Layout, dropout_head: bool) -> Found:
    merged = (tensors.count(rf"layer{level}\.big\.(\d+)\.") + 1 for level in (1, 2, 3))
    blocks = (*merged, tensors.count(r"layer4\.(\d+)\."))
    published = {
        key: tuple(stage.blocks for stage in plan.stages) for key, plan in PLANS.items() if key != MINI
    }
    depth = _match(blocks, published)
    littles = tuple(tensors.count(rf"layer{level}\.little\.(\d+)\.") for level in (1, 2, 3))
    betas = tuple(
        beta for beta in range(1, 65) if littles == tuple(max(1, b // beta - 1) for b in blocks[:3])
    )
    widths = (tensors.shape("l_conv0.weight")[0], tensors.shape("layer3.little_e.0.weight")[1])
    alphas = [alpha for alpha in range(1, 65) if widths == (64 // alpha, 1024 // alpha)]
    if not alphas or not betas:
        raise CheckpointError(
            f"no alpha and beta give little branches of {littles} blocks, {widths} channels"
        )
    taps = _taps(tensors)
    return Found(
        families=(Family.BLVNET_TAM,) if taps else (Family.BLVNET,),
        depth=depth,
        classes=tensors.shape("new_fc.weight" if dropout_head else "fc.weight")[0],
        taps=taps,
        alpha=alphas[0],
        betas=betas,
        dropout_head=dropout_head if layout is Layout.BLVNET_TAM else None,
    )


def _resnet(tensors: Tensors) -> Found:
    bottlenecks = tensors.has(r"layer1\.0\.conv3\.")
    table = {key: blocks for key, blocks in BLOCKS.items() if (int(key) >= 50) == bottlenecks}
    depth = _match(tuple(tensors.count(rf"layer{level}\.(\d+)\.") for level in (1, 2, 3, 4)), table)
    taps = _taps(tensors)
    volumetric = len(tensors.shape("conv1.weight")) == 5
    match volumetric, bool(taps):
        case True, True:
            families: tuple[Family, ...] = (Family.TAM_I3D_RESNET,)
        case True, False:
            families = (Family.I3D_RESNET,)
        case False, True:
            families = (Family.TAM_RESNET,)
        case _:
            families = (Family.TSN_RESNET, Family.TSM_RESNET)
    return Found(families=families, depth=depth, classes=tensors.shape("fc.weight")[0], taps=taps)


def _taps(tensors: Tensors) -> int | None:
    """Taps of the TAMs: those of the fullest one, so that one with a tensor missing is not mistaken."""
    if tensors.has(r"(.*\.)?tam\.(prev|curr|next)"):
        return len(TAP_NAMES)
    layers = tensors.count(r"(?:.*\.)?tam\.blending_layers\.(\d+)\.")
    return layers or None


def _match(blocks: tuple[int, ...], table: Mapping[str, tuple[int, ...]]) -> str:
    for depth, known in table.items():
        if blocks == known:
            return depth
    depths = ", ".join(table)
    raise CheckpointError(f"its layers have {blocks} blocks, which is none of the depths {depths}")

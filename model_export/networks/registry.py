"""Architecture names: `parse_architecture` reads them, `build` builds their networks.

    ARCH    = FAMILY "-" DEPTH options
    options = ["-aA"] ["-bB"] ["-fFx2"] ["-shared" | "-dual"] ["-blendR"]      in any order

`-a2-b4` are alpha and beta of the bLVNet family, `-f8x2` its 8 pairs of frames (T = 16), `-fT` the frames of
a network with one input, `-blendR` the taps of its TAMs, `-shared` and `-dual` the stems of `config.Stem`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from model_export.networks.blvnet import BLRESNETS, BLVNet
from model_export.networks.config import MINI, ConfigError, Family, ModelConfig, Stem, default_stem
from model_export.networks.residual import VideoClassifier
from model_export.networks.resnet import RESNETS, FrameResNet, I3DResNet
from model_export.networks.temporal import TamInit, initialise_taps

Value = TypeVar("Value")

# The builder of each family, and the depths that it has.
NETWORKS: dict[Family, tuple[Callable[[ModelConfig], VideoClassifier], tuple[str, ...]]] = {
    Family.BLVNET_TAM: (BLVNet, tuple(BLRESNETS)),
    Family.BLVNET_TSM: (BLVNet, tuple(BLRESNETS)),
    Family.BLVNET: (BLVNet, tuple(BLRESNETS)),
    Family.TAM_RESNET: (FrameResNet, tuple(RESNETS)),
    Family.TSN_RESNET: (FrameResNet, tuple(RESNETS)),
    Family.TSM_RESNET: (FrameResNet, tuple(RESNETS)),
    Family.I3D_RESNET: (I3DResNet, tuple(RESNETS)),
    Family.TAM_I3D_RESNET: (I3DResNet, tuple(RESNETS)),
}

# Defaults of the published networks, and of the mini networks.
SIZE, MINI_SIZE = 224, 64
BETA, MINI_BETA = 4, 2
DROPOUT, MINI_DROPOUT = 0.5, 0.2
MINI_FRAMES = 16

_OPTIONS = {
    "alpha": re.compile(r"a([1-9]\d{0,2})"),
    "beta": re.compile(r"b([1-9]\d{0,2})"),
    "pairs": re.compile(r"f([1-9]\d{0,3})x2"),
    "frames": re.compile(r"f([1-9]\d{0,3})"),
    "stem": re.compile(r"(shared|dual)"),
    "taps": re.compile(r"blend([1-9]\d{0,2})"),
}


@dataclass(frozen=True)
class ArchitectureName:
    """The parts of an architecture name; None for options that it does not have."""

    family: Family
    depth: str
    frames: int | None = None
    taps: int | None = None
    stem: Stem | None = None
    alpha: int | None = None
    beta: int | None = None


def build(config: ModelConfig, tam_init: TamInit = TamInit.SHIFT) -> VideoClassifier:
    """The network with initial weights.

    Raises:
        ConfigError: the family does not have that depth.
    """
    builder, depths = NETWORKS[config.family]
    if config.depth not in depths:
        raise ConfigError(f"{config.family} has the depths {', '.join(depths)}, not {config.depth}")
    network = builder(config)
    initialise_taps(network, tam_init)
    return network


def architectures() -> list[str]:
    """All names without options."""
    return [family.named(depth) for family, (_, depths) in NETWORKS.items() for depth in depths]


def parse_architecture(
    name: str,
    *,
    num_classes: int,
    frames: int | None = None,
    taps: int | None = None,
    stem: Stem | None = None,
    size: int | None = None,
    dropout: float | None = None,
) -> ModelConfig:
    """The network of an architecture name and command-line options.

    An option that is None comes from the name, or else has the published value. A name without a stem
    is the published network, with the shared stem; mini networks have the dual stem.

    Raises:
        ConfigError: the name is unknown, an option does not belong to the family, frames are missing, or an
            argument contradicts the name. The message says what is allowed.
    """
    parts = read_name(name)
    mini = parts.depth == MINI
    if taps is not None and not parts.family.has_tam:
        raise ConfigError(f"{name} has no temporal aggregation modules, so taps cannot be {taps}")
    frames = _agree(name, "frames", parts.frames, frames, MINI_FRAMES if mini else None)
    if frames is None:
        raise ConfigError(
            f"{name} has no number of frames: add --frames, or {_frames_option(parts.family)} to the name"
        )
    return ModelConfig(
        family=parts.family,
        depth=parts.depth,
        frames=frames,
        num_classes=num_classes,
        size=(MINI_SIZE if mini else SIZE) if size is None else size,
        taps=_agree(name, "taps", parts.taps, taps, 3),
        stem=_agree(name, "stem", parts.stem, stem, default_stem(parts.family, parts.depth)),
        alpha=parts.alpha or 2,
        beta=parts.beta or (MINI_BETA if mini else BETA),
        dropout=(MINI_DROPOUT if mini else DROPOUT) if dropout is None else dropout,
    )


def read_name(name: str) -> ArchitectureName:
    """Split an architecture name into its parts.

    Raises:
        ConfigError: the name or an option is unknown, or the option does not belong to the family.
    """
    known = {
        family.named(depth): (family, depth) for family, (_, depths) in NETWORKS.items() for depth in depths
    }
    longest_first = sorted(known, key=len, reverse=True)
    base = next((base for base in longest_first if name == base or name.startswith(f"{base}-")), None)
    if base is None:
        published = (
            f"{family}-{{{','.join(depth for depth in depths if depth != MINI)}}}"
            for family, (_, depths) in NETWORKS.items()
        )
        minis = (family.named(MINI) for family in NETWORKS)
        raise ConfigError(f"unknown architecture {name!r}; there are {', '.join((*published, *minis))}")
    family, depth = known[base]
    parts: dict[str, Any] = {}
    for text in filter(None, name[len(base) :].split("-")):
        option, value = _read_option(name, text, family, depth)
        if option in parts:
            raise ConfigError(f"{name} gives {option} twice")
        parts[option] = value
    return ArchitectureName(family, depth, **parts)


def _read_option(name: str, text: str, family: Family, depth: str) -> tuple[str, int | Stem]:
    """The field of `ArchitectureName` that an option sets, and its value."""
    found = next(
        ((key, match[1]) for key, pattern in _OPTIONS.items() if (match := pattern.fullmatch(text))), None
    )
    if found is None:
        raise ConfigError(
            f"{name}: unknown option -{text}; options are -aA, -bB, -fFx2 (F pairs of frames), -fT, -shared, "
            "-dual and -blendR"
        )
    option, value = found
    if option in ("pairs", "frames"):
        if (option == "pairs") != family.big_little:
            raise ConfigError(f"{name}: write the frames of {family} as {_frames_option(family)}")
        return "frames", int(value) * (2 if option == "pairs" else 1)
    allowed = family.has_tam if option == "taps" else family.big_little
    if not allowed or (depth == MINI and option in ("alpha", "beta")):
        raise ConfigError(f"{name}: {family.named(depth)} has no option for {option}")
    return option, Stem(value) if option == "stem" else int(value)


def _agree(name: str, option: str, in_name: Value | None, argument: Value | None, default: Value) -> Value:
    """The value from the name or the argument, which must agree if both are given."""
    if in_name is not None and argument is not None and in_name != argument:
        raise ConfigError(f"{name} has {option} {in_name}, which contradicts {option} {argument}")
    if in_name is not None:
        return in_name
    return default if argument is None else argument


def _frames_option(family: Family) -> str:
    return "-f8x2 for 16 frames" if family.big_little else "-f16 for 16 frames"

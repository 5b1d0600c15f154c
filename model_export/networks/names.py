"""Names of networks: `parse_architecture` reads them, `build` builds what they stand for.

    ARCH    = FAMILY "-" DEPTH options
    options = ["-aA"] ["-bB"] ["-fFx2"] ["-shared" | "-dual"] ["-blendR"]      in any order

`-a2-b4` are alpha and beta of the bLVNet family, `-f8x2` its 8 pairs of frames (T = 16), `-fT` the frames
of a network with one stream, `-blendR` the taps of its TAMs; `-dual` and `-shared` are the stems of
`config.Stem`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from model_export.config import MINI, ConfigError, Family, ModelConfig, Stem, default_stem
from model_export.networks.blvnet import PLANS, BLVNet
from model_export.networks.resnet import BLOCKS, FrameResNet, I3DResNet

Value = TypeVar("Value")


@dataclass(frozen=True)
class Entry:
    """A family's builder and the depths it comes in."""

    builder: Callable[[ModelConfig], nn.Module]
    depths: tuple[str, ...]


NETWORKS: dict[Family, Entry] = {
    Family.BLVNET_TAM: Entry(BLVNet, tuple(PLANS)),
    Family.BLVNET: Entry(BLVNet, tuple(depth for depth in PLANS if depth != MINI)),
    Family.TAM_RESNET: Entry(FrameResNet, tuple(BLOCKS)),
    Family.TSN_RESNET: Entry(FrameResNet, tuple(BLOCKS)),
    Family.TSM_RESNET: Entry(FrameResNet, tuple(BLOCKS)),
    Family.I3D_RESNET: Entry(I3DResNet, tuple(BLOCKS)),
    Family.TAM_I3D_RESNET: Entry(I3DResNet, tuple(BLOCKS)),
}

MINI_FRAMES = 16
MINI_SIZE = 64
MINI_BETA = 2
MINI_DROPOUT = 0.2  # a small network on small clips has less to forget

_OPTIONS = {
    "alpha": re.compile(r"a([1-9]\d{0,2})"),
    "beta": re.compile(r"b([1-9]\d{0,2})"),
    "pairs": re.compile(r"f([1-9]\d{0,3})x2"),
    "frames": re.compile(r"f([1-9]\d{0,3})"),
    "stem": re.compile(r"(shared|dual)"),
    "taps": re.compile(r"blend([1-9]\d{0,2})"),
}


def build(config: ModelConfig) -> nn.Module:
    """The network with fresh weights: `forward(*streams)` -> evidence (N, T', classes).

    Raises:
        ConfigError: the family does not come in that depth.
    """
    entry = NETWORKS[config.family]
    if config.depth not in entry.depths:
        raise ConfigError(f"{config.family} comes in depths {', '.join(entry.depths)}, not {config.depth}")
    return entry.builder(config)


def architectures() -> list[str]:
    """Every name without options, as the command line takes them."""
    return [f"{family}-{depth}" for family, entry in NETWORKS.items() for depth in entry.depths]


@dataclass(frozen=True)
class Name:
    """What a name says; None where it is silent."""

    family: Family
    depth: str
    frames: int | None = None
    taps: int | None = None
    stem: Stem | None = None
    alpha: int | None = None
    beta: int | None = None


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
    """The network that `name` and the options of a command line stand for.

    Options that stay None come from the name, or are the published ones. 8 pairs are 16 frames.

    Raises:
        ConfigError: the name is unknown, an option does not belong to the family, frames are missing, or an
            argument contradicts the name. The message says what is allowed.
    """
    said = read_name(name)
    mini = said.depth == MINI
    frames = _agree(name, "frames", said.frames, frames, MINI_FRAMES if mini else None)
    if frames is None:
        raise ConfigError(
            f"{name} does not say how many frames: add --frames, or {_frames_hint(said.family)} to the name"
        )
    return ModelConfig(
        family=said.family,
        depth=said.depth,
        frames=frames,
        num_classes=num_classes,
        size=size or (MINI_SIZE if mini else 224),
        taps=_agree(name, "taps", said.taps, taps, 3),
        stem=_agree(name, "stem", said.stem, stem, default_stem(said.depth)),
        alpha=said.alpha or 2,
        beta=said.beta or (MINI_BETA if mini else 4),
        dropout=(MINI_DROPOUT if mini else 0.5) if dropout is None else dropout,
    )


def read_name(name: str) -> Name:
    """What a name says.

    Raises:
        ConfigError: it is unknown, or an option is, or does not belong to the family.
    """
    family, depth, text = _family(name)
    said: dict[str, int | Stem] = {}
    for part in filter(None, text.split("-")):
        option, value = _option(name, part)
        _check_option(name, option, family, depth)
        field = "frames" if option == "pairs" else option
        if field in said:
            raise ConfigError(f"{name} gives {field} twice")
        said[field] = value
    return Name(family, depth, **said)  # type: ignore[arg-type]


def _family(name: str) -> tuple[Family, str, str]:
    """Family, depth and the options' text of a name; the longest name that fits."""
    for architecture in sorted(architectures(), key=len, reverse=True):
        if name == architecture or name.startswith(architecture + "-"):
            family, _, depth = architecture.rpartition("-")
            return Family(family), depth, name[len(architecture) :]
    allowed = "; ".join(f"{family}-{{{','.join(entry.depths)}}}" for family, entry in NETWORKS.items())
    raise ConfigError(f"unknown architecture {name!r}; there are {allowed}")


def _option(name: str, part: str) -> tuple[str, int | Stem]:
    """The option that a part of a name is, and its value; pairs of frames are counted as frames."""
    for option, pattern in _OPTIONS.items():
        if match := pattern.fullmatch(part):
            if option == "stem":
                return option, Stem(match[1])
            return option, int(match[1]) * (2 if option == "pairs" else 1)
    raise ConfigError(
        f"{name}: cannot read the option -{part}; options are -aA, -bB, -fFx2 (F pairs of frames), -fT, "
        "-shared, -dual and -blendR"
    )


def _check_option(name: str, option: str, family: Family, depth: str) -> None:
    """Whether the family has the option at all."""
    if option in ("pairs", "frames"):
        if (option == "pairs") != family.two_streams:
            raise ConfigError(f"{name}: the frames of {family} are spelled {_frames_hint(family)}")
        return
    has = family.aggregates if option == "taps" else family.two_streams
    if not has or (depth == MINI and option in ("alpha", "beta")):
        raise ConfigError(f"{name}: {family}-{depth} has no option for {option}")


def _agree(name: str, what: str, named: Value | None, given: Value | None, default: Value) -> Value:
    """The value that the name and the argument agree on."""
    if named is not None and given is not None and named != given:
        raise ConfigError(f"{name} means {what} {named}, {given} was asked for")
    if named is not None:
        return named
    return default if given is None else given


def _frames_hint(family: Family) -> str:
    return "-f8x2 for 16 frames" if family.two_streams else "-f16 for 16 frames"

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

from torch import nn

from model_export.config import MINI, ConfigError, Family, ModelConfig, Stem, default_stem
from model_export.networks.blvnet import PLANS, BLVNet
from model_export.networks.resnet import BLOCKS, FrameResNet, I3DResNet


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
MINI_SIZE = 96
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
    family, depth, rest = _family(name)
    options = _options(name, rest, family, depth)
    mini = depth == MINI
    frames = _agree(name, "frames", options.get("frames"), frames, MINI_FRAMES if mini else None)
    if frames is None:
        raise ConfigError(f"{name} does not say how many frames: add --frames, or {_frames_hint(family)}")
    taps = _agree(name, "taps", options.get("taps"), taps, 3)
    assert taps is not None
    named_stem = Stem(str(options["stem"])) if "stem" in options else None
    if stem and named_stem and stem is not named_stem:
        raise ConfigError(f"{name} has the {named_stem} stem, the {stem} stem was asked for")
    return ModelConfig(
        family=family,
        depth=depth,
        frames=frames,
        num_classes=num_classes,
        size=size or (MINI_SIZE if mini else 224),
        taps=taps,
        stem=stem or named_stem or default_stem(depth),
        alpha=int(options.get("alpha", 2)),
        beta=int(options.get("beta", MINI_BETA if mini else 4)),
        dropout=(MINI_DROPOUT if mini else 0.5) if dropout is None else dropout,
    )


def _family(name: str) -> tuple[Family, str, str]:
    """Family, depth and the options' text of a name; the longest name that fits."""
    known = sorted(architectures(), key=len, reverse=True)
    for architecture in known:
        if name == architecture or name.startswith(architecture + "-"):
            family, _, depth = architecture.rpartition("-")
            return Family(family), depth, name[len(architecture) :]
    allowed = "; ".join(f"{family}-{{{','.join(entry.depths)}}}" for family, entry in NETWORKS.items())
    raise ConfigError(f"unknown architecture {name!r}; there are {allowed}")


def _options(name: str, text: str, family: Family, depth: str) -> dict[str, int | str]:
    options: dict[str, int | str] = {}
    for part in filter(None, text.split("-")):
        key, value = _option(name, part)
        if key == "pairs":
            key, value = "frames", 2 * int(value)
        if key in options:
            raise ConfigError(f"{name} gives {key} twice")
        options[key] = value
    _check_belonging(name, text, options, family, depth)
    return options


def _option(name: str, part: str) -> tuple[str, int | str]:
    for key, pattern in _OPTIONS.items():
        if match := pattern.fullmatch(part):
            return key, match[1] if key == "stem" else int(match[1])
    raise ConfigError(
        f"{name}: cannot read the option -{part}; options are -aA, -bB, -fFx2 (F pairs of frames), -fT, "
        "-shared, -dual and -blendR"
    )


def _check_belonging(name: str, text: str, options: dict[str, int | str], family: Family, depth: str) -> None:
    pairs = re.search(r"-f\d+x2(-|$)", text) is not None
    if "frames" in options and pairs != family.two_streams:
        raise ConfigError(f"{name}: frames of {family} are spelled {_frames_hint(family)}")
    bound = {"alpha", "beta", "stem"} if not family.two_streams else set()
    if depth == MINI:
        bound |= {"alpha", "beta"}
    if not family.aggregates:
        bound.add("taps")
    if wrong := sorted(bound & set(options)):
        raise ConfigError(f"{name}: {family}-{depth} has no option for {', '.join(wrong)}")


def _agree(
    name: str, what: str, named: int | str | None, given: int | None, default: int | None
) -> int | None:
    """The number that the name and the argument agree on."""
    if named is not None and given is not None and int(named) != given:
        raise ConfigError(f"{name} means {named} {what}, {given} were asked for")
    if named is not None:
        return int(named)
    return default if given is None else given


def _frames_hint(family: Family) -> str:
    return "-f8x2 for 16 frames" if family.two_streams else "-f16 for 16 frames"

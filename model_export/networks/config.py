"""`ModelConfig`: everything that determines a network's shape and the clips that it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.errors import BlvnetError

MAX_FRAMES = 1024
MAX_SIZE = 4096
MAX_CLASSES = 100_000  # as many labels as a package may have
MIN_SIZE = 32  # the last stage has a stride of 32 pixels
MINI = "mini"  # the depth of the networks that are small enough to bundle


class Family(StrEnum):
    """Network families, by the first part of their architecture names."""

    BLVNET_TAM = "blvnet-tam"
    BLVNET_TSM = "blvnet-tsm"
    BLVNET = "blvnet"
    TAM_RESNET = "tam-resnet"
    TSN_RESNET = "tsn-resnet"
    TSM_RESNET = "tsm-resnet"
    I3D_RESNET = "i3d-resnet"
    TAM_I3D_RESNET = "tam-i3d-resnet"

    @property
    def big_little(self) -> bool:
        """Whether even and odd frames are separate inputs, for the little and the big branch."""
        return self in (Family.BLVNET_TAM, Family.BLVNET_TSM, Family.BLVNET)

    @property
    def has_tam(self) -> bool:
        """Whether the network has temporal aggregation modules, so that `taps` applies."""
        return self in (Family.BLVNET_TAM, Family.TAM_RESNET, Family.TAM_I3D_RESNET)

    def named(self, depth: str) -> str:
        """The architecture name of a depth, without options: `tsn-resnet-50`, `tsn-mini`."""
        family = self.removesuffix("-resnet") if depth == MINI else self
        return f"{family}-{depth}"


class Stem(StrEnum):
    """Where the two inputs of a big-little network meet."""

    SHARED = "shared"  # conv1 on all frames at full resolution, as published
    DUAL = "dual"  # the big input has half the resolution, its own statistics and its own TAM


class ConfigError(BlvnetError):
    """A network that cannot be built, or an option that contradicts its name."""


@dataclass(frozen=True)
class ModelConfig:
    """One network.

    Attributes:
        family: the network family.
        depth: "18", "34", "50", "101", "152" or "mini"; `registry.NETWORKS` has those of each family.
        frames: T, the frames of a clip; even for big-little networks.
        num_classes: C, the length of the logits.
        size: S, the side of the square input in pixels; of the little input if there are two.
        taps: r, the taps of a TAM; odd.
        stem: stem of a big-little network.
        alpha: the little branch has 1/alpha of the big branch's channels (alpha in the paper).
        beta: the little branch has about 1/beta of the big branch's blocks (beta in the paper).
        dropout: probability before the classifier, in training.
    """

    family: Family
    depth: str
    frames: int
    num_classes: int
    size: int = 224
    taps: int = 3
    stem: Stem = Stem.SHARED
    alpha: int = 2
    beta: int = 4
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _require(1 <= self.frames <= MAX_FRAMES, f"frames must be 1 to {MAX_FRAMES}, not {self.frames}")
        _require(MIN_SIZE <= self.size <= MAX_SIZE, f"size must be {MIN_SIZE} to {MAX_SIZE}, not {self.size}")
        _require(self.num_classes >= 1, f"a network needs at least one class, not {self.num_classes}")
        _require(
            self.num_classes <= MAX_CLASSES,
            f"a network has at most {MAX_CLASSES} classes, not {self.num_classes}",
        )
        _require(self.taps >= 1 and self.taps % 2 == 1, f"taps must be an odd number, not {self.taps}")
        _require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and below 1, not {self.dropout}")
        _require(
            1 <= self.alpha <= 64 and 1 <= self.beta <= 64,
            f"alpha and beta must be 1 to 64, not {self.alpha} and {self.beta}",
        )
        _require(
            not self.family.big_little or self.frames % 2 == 0,
            f"{self.family} takes pairs of frames, so frames must be even, not {self.frames}",
        )
        _require(
            self.family.big_little or self.stem is Stem.SHARED,
            f"{self.family} has one input, so it has no {self.stem} stem",
        )

    @property
    def architecture(self) -> str:
        """The canonical name; `registry.parse_architecture` reads it back."""
        name = self.family.named(self.depth)
        if self.family.big_little:
            if self.depth != MINI:
                name += f"-a{self.alpha}-b{self.beta}"
            name += f"-f{self.frames // 2}x2"
            if self.stem is not default_stem(self.family, self.depth):
                name += f"-{self.stem}"
        if self.family.has_tam and self.taps != 3:
            name += f"-blend{self.taps}"
        return name

    @property
    def moments(self) -> int:
        """T', the length of the evidence: the frames, or the pairs of frames of a big-little network."""
        return self.frames // 2 if self.family.big_little else self.frames

    @property
    def big_size(self) -> int:
        """Side of the big input in pixels: half of `size`, rounded up, with the dual stem."""
        return (self.size + 1) // 2 if self.stem is Stem.DUAL else self.size

    def clip_spec(
        self, sampling: Sampling = Sampling.UNIFORM, stride: int = 1, scale: int | None = None
    ) -> ClipSpec:
        """The clips that the network takes.

        `scale` is the shorter side in pixels before the centre crop of `size`; default `size`, as published.
        The big input of the dual stem is scaled by the same ratio, so both inputs show the same part of the
        frame.
        """
        scale = self.size if scale is None else scale
        if not self.family.big_little:
            inputs: tuple[InputSpec, ...] = (InputSpec("frames", Frames.ALL, self.size, scale),)
        else:
            big_scale = max(self.big_size, round(scale * self.big_size / self.size))
            inputs = (
                InputSpec("little", Frames.EVEN, self.size, scale),
                InputSpec("big", Frames.ODD, self.big_size, big_scale),
            )
        return ClipSpec(frames=self.frames, inputs=inputs, sampling=sampling, stride=stride)

    def to_json(self) -> dict[str, Any]:
        """The configuration as a dict of strings and numbers."""
        return {
            key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ConfigError(f"unknown fields in the network configuration: {', '.join(unknown)}")
        try:
            return cls(**document | {"family": Family(document["family"]), "stem": Stem(document["stem"])})
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigError(f"the network configuration is invalid: {exc}") from exc


def default_stem(family: Family, depth: str) -> Stem:
    """The stem of a name without one: shared for the published networks, dual for the mini networks."""
    return Stem.DUAL if family.big_little and depth == MINI else Stem.SHARED


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)

"""`ModelConfig`: everything that decides a network's shape, and what it wants of a clip."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.errors import BlvnetError

MAX_FRAMES = 1024
MAX_SIZE = 4096
MIN_SIZE = 32  # below, the last layer's maps have no pixel left


class Family(StrEnum):
    """The networks of the paper's comparison; the names of the command line without depth and options."""

    BLVNET_TAM = "blvnet-tam"
    BLVNET = "blvnet"
    TAM_RESNET = "tam-resnet"
    TSN_RESNET = "tsn-resnet"
    TSM_RESNET = "tsm-resnet"
    I3D_RESNET = "i3d-resnet"
    TAM_I3D_RESNET = "tam-i3d-resnet"

    @property
    def two_streams(self) -> bool:
        """Whether even and odd frames go into branches of their own."""
        return self in (Family.BLVNET_TAM, Family.BLVNET)

    @property
    def aggregates(self) -> bool:
        """Whether the network holds TAMs, so that `taps` means something."""
        return self in (Family.BLVNET_TAM, Family.TAM_RESNET, Family.TAM_I3D_RESNET)


class Stem(StrEnum):
    """Where a two-stream network meets its two resolutions."""

    SHARED = "shared"  # conv1 at full resolution on all frames, as published
    DUAL = "dual"  # the big stream arrives at half resolution and has conv1 and a TAM of its own


MINI = "mini"  # the depth of the network that is small enough to bundle


class ConfigError(BlvnetError):
    """A network that cannot be, or that its name contradicts."""


@dataclass(frozen=True)
class ModelConfig:
    """One network.

    Attributes:
        family: which network.
        depth: "18", "34", "50", "101", "152" or "mini"; what a family has is in `networks.names`.
        frames: T, the frames of a clip; even for two streams.
        num_classes: length of the logits.
        size: S, side of the square input in pixels; the little stream's with two streams.
        taps: r, the TAM's taps; odd.
        stem: of a two-stream network.
        alpha: the little branch has 1/alpha of the channels (paper: alpha).
        beta: the little branch has about 1/beta of the blocks (paper: beta).
        dropout: probability in front of the classifier, in training.
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
        _require(self.num_classes >= 1, f"a network needs one class at least, not {self.num_classes}")
        _require(self.taps >= 1 and self.taps % 2 == 1, f"taps must be an odd number, not {self.taps}")
        _require(0.0 <= self.dropout < 1.0, f"dropout must be from 0 to below 1, not {self.dropout}")
        _require(
            1 <= self.alpha <= 64 and 1 <= self.beta <= 64,
            f"alpha and beta must be 1 to 64, not {self.alpha} and {self.beta}",
        )
        _require(
            not self.family.two_streams or self.frames % 2 == 0,
            f"{self.family} splits frames in pairs, so frames must be even, not {self.frames}",
        )
        _require(
            self.family.two_streams or self.stem is Stem.SHARED,
            f"{self.family} has one stream, so no {self.stem} stem",
        )

    @property
    def architecture(self) -> str:
        """The canonical name; `networks.names.parse_architecture` reads it back."""
        name = f"{self.family}-{self.depth}"
        if self.family.two_streams:
            if self.depth != MINI:
                name += f"-a{self.alpha}-b{self.beta}"
            name += f"-f{self.frames // 2}x2"
            if self.stem is not default_stem(self.depth):
                name += f"-{self.stem}"
        if self.family.aggregates and self.taps != 3:
            name += f"-blend{self.taps}"
        return name

    @property
    def moments(self) -> int:
        """T', the length of the evidence: one score per frame, or per pair of frames with two streams."""
        return self.frames // 2 if self.family.two_streams else self.frames

    @property
    def big_size(self) -> int:
        """Side of the big stream's input; half of `size`, rounded up, with the dual stem."""
        return (self.size + 1) // 2 if self.stem is Stem.DUAL else self.size

    def clip_spec(
        self, sampling: Sampling = Sampling.UNIFORM, stride: int = 1, scale: int | None = None
    ) -> ClipSpec:
        """What the network wants of a clip.

        `scale` is the shorter side, in pixels, before the centre crop of `size`; as published, `size` itself.
        The big stream of the dual stem is scaled by the same ratio, so that both see the same part of the
        frame.
        """
        scale = self.size if scale is None else scale
        if not self.family.two_streams:
            inputs: tuple[InputSpec, ...] = (InputSpec("frames", Frames.ALL, self.size, scale),)
        else:
            big_scale = max(self.big_size, round(scale * self.big_size / self.size))
            inputs = (
                InputSpec("little", Frames.EVEN, self.size, scale),
                InputSpec("big", Frames.ODD, self.big_size, big_scale),
            )
        return ClipSpec(frames=self.frames, inputs=inputs, sampling=sampling, stride=stride)

    def to_json(self) -> dict[str, Any]:
        """A plain dict of strings and numbers."""
        return {
            key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The reverse of `to_json`.

        Raises:
            ConfigError: a field is missing, unknown, or out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ConfigError(f"unknown fields in the network's configuration: {', '.join(unknown)}")
        try:
            return cls(**document | {"family": Family(document["family"]), "stem": Stem(document["stem"])})
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigError(f"the network's configuration cannot be read: {exc}") from exc


def default_stem(depth: str) -> Stem:
    """The stem that a name stands for: published networks share theirs, the mini network does not."""
    return Stem.DUAL if depth == MINI else Stem.SHARED


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)

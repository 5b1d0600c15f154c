"""Everything that decides how a training run goes, in one frozen record that its checkpoints carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from service.errors import BlvnetError


class Amp(StrEnum):
    """Arithmetic of the forward and backward pass; weights and their updates stay float32."""

    BF16 = "bf16"
    OFF = "off"


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the training randomness; every draw is made once per clip, for all its frames alike.

    Attributes:
        mirror: probability, for the clips whose label has a counterpart in the mirror.
        reverse: probability, for the clips whose label has a counterpart backwards.
        geometry: probability of a random zoom and shift.
        zoom: half-width of the zoom around 1.
        shift: largest shift, as a fraction of the side.
        brightness: half-width of the factor around 1.
        contrast: half-width of the factor around 1.
        saturation: half-width of the factor around 1.
        shuffle_colours: probability that red, green and blue change places.
        grey: probability of no colour at all.
        noise: largest standard deviation of noise on every pixel, of 1.
        cutout: probability of a grey rectangle.
        cutout_side: the rectangle's largest sides, as a fraction of the side.
    """

    mirror: float = 0.5
    reverse: float = 0.5
    geometry: float = 0.7
    zoom: float = 0.15
    shift: float = 0.08
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    shuffle_colours: float = 0.3
    grey: float = 0.1
    noise: float = 0.03
    cutout: float = 0.2
    cutout_side: float = 0.25

    @classmethod
    def none(cls) -> Augmentation:
        """Every clip as it is."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0.0))


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation: how long, how fast, how regularised.

    The learning rate climbs linearly over `warmup_epochs` to `lr` and then falls along half a cosine to zero
    at the end of `epochs`. `phases` is how many samplings of each clip training chooses from; `log_every` and
    `save_every_s` are in steps and seconds.
    """

    epochs: int = 25
    batch_size: int = 32
    lr: float = 0.05
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    phases: int = 3
    workers: int = 2
    seed: int = 0
    amp: Amp = Amp.BF16
    log_every: int = 10
    save_every_s: float = 180.0
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        """Refuse values that no run can use; the message names the option."""
        positive = ("epochs", "batch_size", "lr", "clip_norm", "phases", "log_every", "save_every_s")
        for name in positive:
            if not getattr(self, name) > 0:
                raise BlvnetError(f"{name} must be more than 0, it is {getattr(self, name)}")
        for name in ("warmup_epochs", "momentum", "weight_decay", "label_smoothing", "workers", "seed"):
            if getattr(self, name) < 0:
                raise BlvnetError(f"{name} must not be negative, it is {getattr(self, name)}")
        if not self.warmup_epochs < self.epochs:
            raise BlvnetError(
                f"warmup_epochs ({self.warmup_epochs}) must be fewer than epochs ({self.epochs})"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for checkpoints and logs."""
        return asdict(self) | {"amp": self.amp.value}


def train_config_from_dict(document: dict[str, Any]) -> TrainConfig:
    """The inverse of `TrainConfig.to_dict`.

    Raises:
        BlvnetError: a field is unknown, which means that another version of this code wrote the document.
    """
    unknown = set(document) - {field.name for field in fields(TrainConfig)}
    if unknown:
        raise BlvnetError(f"unknown training options: {', '.join(sorted(unknown))}")
    values = dict(document)
    values["amp"] = Amp(values["amp"])
    values["augmentation"] = Augmentation(**values["augmentation"])
    return TrainConfig(**values)

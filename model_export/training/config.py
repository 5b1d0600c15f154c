"""The options of a training run, in one frozen record that its checkpoints carry.

Each field is annotated with a help text and a range, from which `blvnet train` makes a command-line option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from service.errors import BlvnetError

DEFAULT_STEPS = (0.3, 0.6, 0.9)  # parts of a run after which the step schedule divides the rate, as published


class Amp(StrEnum):
    """Arithmetic of the forward and backward pass; weights and their updates stay float32."""

    AUTO = "auto"  # bf16 on devices with instructions for it, fp16 on other GPUs, off elsewhere
    BF16 = "bf16"
    FP16 = "fp16"  # with a scaled loss
    OFF = "off"


class OptimizerName(StrEnum):
    """The update rule."""

    SGD = "sgd"  # with Nesterov momentum
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"  # along half a cosine to 0, step by step
    STEP = "step"  # by a factor of 10 after each of `lr_steps`
    PLATEAU = "plateau"  # by a factor of 10 when the validation loss stops falling


class Decay(StrEnum):
    """The parameters that weight decay applies to."""

    KERNELS = "kernels"  # not norms, biases and temporal taps
    ALL = "all"


class BatchNorm(StrEnum):
    """The statistics that batch norm uses in training."""

    BATCH = "batch"  # those of the clips of a part of the batch, in one process
    FROZEN = "frozen"  # the running ones; they, scales and shifts do not change
    PARTIAL = "partial"  # frozen, except in the first layer (Wang et al., arXiv 1608.00859)
    SYNC = "sync"  # those of the clips of all processes


class Freeze(StrEnum):
    """The last of the stages whose weights and statistics do not change."""

    NONE = "none"
    STEM = "stem"
    LAYER1 = "layer1"
    LAYER2 = "layer2"
    LAYER3 = "layer3"
    LAYER4 = "layer4"


class ClassWeights(StrEnum):
    """Weights of the labels in the loss."""

    NONE = "none"
    BALANCED = "balanced"  # the inverse of their number of training clips


class Offsets(StrEnum):
    """Temporal offsets of the frames of a training clip."""

    PHASES = "phases"  # one of `phases` offsets, evenly spread
    SEGMENT = "segment"  # any offset, the same in each segment of a video; any window of dense sampling
    FRAME = "frame"  # any offset in each segment; any window of dense sampling


class CropMode(StrEnum):
    """Crops of training clips that are decoded as they are drawn."""

    FIXED = "fixed"  # one of three along the longer side
    MULTI_SCALE = "multi-scale"  # see `clips.random_views`


@dataclass(frozen=True)
class Option:
    """The annotation of a field: its help text and its range.

    Attributes:
        help: one or two sentences.
        low: the smallest value.
        high: the largest value.
        above: a lower bound, exclusive.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None


def options_of(record: type[TrainConfig | Augmentation]) -> dict[str, tuple[Any, Option]]:
    """The type and the option of each field that has one."""
    hints = get_type_hints(record, include_extras=True)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}


def check_ranges(record: TrainConfig | Augmentation) -> None:
    """Check each field against its range.

    Raises:
        BlvnetError: a value is out of range; the message names the option.
    """
    for name, (_, option) in options_of(type(record)).items():
        value = getattr(record, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float) and not math.isfinite(part):
                raise BlvnetError(f"{name} must be a finite number, it is {part}")
        if option.above is not None and not value > option.above:
            raise BlvnetError(f"{name} must be more than {option.above:g}, it is {value}")
        if option.low == 0 and not value >= 0:
            raise BlvnetError(f"{name} must not be negative, it is {value}")
        if option.low is not None and not value >= option.low:
            raise BlvnetError(f"{name} must be at least {option.low:g}, it is {value}")
        if option.high is not None and not value <= option.high:
            raise BlvnetError(f"{name} must be at most {option.high:g}, it is {value}")


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random augmentation, which is drawn once for a clip and applied to all its frames."""

    mirror: Annotated[
        float, Option("Probability, if the label has a mirrored counterpart.", low=0, high=1)
    ] = 0.5
    reverse: Annotated[
        float, Option("Probability, if the label has a reversed counterpart.", low=0, high=1)
    ] = 0.5
    geometry: Annotated[float, Option("Probability of a random zoom and shift.", low=0, high=1)] = 0.7
    zoom: Annotated[float, Option("Largest deviation of the zoom from 1.", low=0, high=0.9)] = 0.15
    shift: Annotated[float, Option("Largest shift, as a fraction of the side.", low=0, high=1)] = 0.08
    brightness: Annotated[float, Option("Largest deviation of the factor from 1.", low=0, high=1)] = 0.3
    contrast: Annotated[float, Option("Largest deviation of the factor from 1.", low=0, high=1)] = 0.3
    saturation: Annotated[float, Option("Largest deviation of the factor from 1.", low=0, high=1)] = 0.4
    shuffle_colours: Annotated[
        float, Option("Probability of a random order of red, green and blue.", low=0, high=1)
    ] = 0.3
    grey: Annotated[float, Option("Probability of a grey clip.", low=0, high=1)] = 0.1
    noise: Annotated[
        float, Option("Largest standard deviation of noise on pixels from 0 to 1.", low=0, high=1)
    ] = 0.03
    cutout: Annotated[float, Option("Probability of a grey rectangle.", low=0, high=1)] = 0.2
    cutout_side: Annotated[float, Option("Largest sides of the rectangle, as a fraction.", low=0, high=1)] = (
        0.25
    )
    rand_augment: Annotated[
        int, Option("RandAugment: operations on each clip; 0 for none.", low=0, high=10)
    ] = 0
    rand_magnitude: Annotated[float, Option("RandAugment: magnitude of the operations.", low=0, high=30)] = (
        9.0
    )
    mixup: Annotated[float, Option("Mixup: alpha of its beta distribution; 0 for none.", low=0, high=100)] = (
        0.0
    )
    cutmix: Annotated[
        float, Option("CutMix: alpha of its beta distribution; 0 for none.", low=0, high=100)
    ] = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def recolours(self) -> bool:
        """Whether pixels are multiplied by a matrix."""
        return any((self.brightness, self.contrast, self.saturation, self.shuffle_colours, self.grey))

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation; the magnitude of RandAugment is kept, as its number of operations is 0."""
        return cls(**{item.name: 0 for item in fields(cls) if item.name != "rand_magnitude"})


@dataclass(frozen=True)
class TrainConfig:
    """The options of the optimisation, with their help texts."""

    epochs: Annotated[int, Option("Passes over the training split.", low=1)] = 25
    batch_size: Annotated[int, Option("Clips of an optimiser step in each process.", low=1)] = 32
    accumulate: Annotated[int, Option("Process each batch in this many parts, to save memory.", low=1)] = 1
    optimizer: Annotated[OptimizerName, Option("Update rule; adamw wants a far lower --lr.")] = (
        OptimizerName.SGD
    )
    lr: Annotated[float, Option("Highest learning rate.", above=0)] = 0.05
    momentum: Annotated[float, Option("Of SGD; decay rate of AdamW's first moment.", low=0, high=0.9999)] = (
        0.9
    )
    schedule: Annotated[Schedule, Option("How the learning rate falls.")] = Schedule.COSINE
    warmup_epochs: Annotated[float, Option("Epochs of rising learning rate; by default 1.", low=0)] = 1.0
    lr_steps: Annotated[
        tuple[float, ...],
        Option(
            "Epochs after which --schedule step divides the rate by 10; by default 30, 60 and 90 % of all."
        ),
    ] = ()
    patience: Annotated[
        int, Option("Epochs without a lower loss before --schedule plateau divides it.", low=1)
    ] = 10
    weight_decay: Annotated[float, Option("Strength of the decay.", low=0)] = 1e-4
    decay: Annotated[Decay, Option("What weight decay applies to.")] = Decay.KERNELS
    clip_norm: Annotated[float, Option("Largest norm of the gradient; 0 for any.", low=0)] = 5.0
    label_smoothing: Annotated[
        float, Option("Part of a target that is spread over all labels.", low=0, high=0.9)
    ] = 0.0
    class_weights: Annotated[ClassWeights, Option("Weights of the labels in the loss.")] = ClassWeights.NONE
    batch_norm: Annotated[BatchNorm, Option("Statistics of batch norm in training.")] = BatchNorm.BATCH
    freeze: Annotated[
        Freeze, Option("Keep the weights and statistics of the network up to this stage; needs --init.")
    ] = Freeze.NONE
    ema: Annotated[
        float,
        Option(
            "Validate and keep a moving average of the weights with this decay; 0 for none.",
            low=0,
            high=0.99999,
        ),
    ] = 0.0
    phases: Annotated[
        int, Option("Temporal offsets to choose from with --offsets phases.", low=1, high=1000)
    ] = 3
    offsets: Annotated[Offsets, Option("Temporal offsets of the frames; others need --no-cached.")] = (
        Offsets.PHASES
    )
    crop: Annotated[CropMode, Option("Crops of training clips; multi-scale needs --no-cached.")] = (
        CropMode.FIXED
    )
    workers: Annotated[int, Option("Decoding processes.", low=0, high=1024)] = 2
    amp: Annotated[Amp, Option("Arithmetic of forward and backward passes.")] = Amp.AUTO
    checkpointing: Annotated[bool, Option("Compute activations twice, to save memory.")] = False
    compile: Annotated[bool, Option("Compile the network with torch.compile.")] = False
    seed: Annotated[int, Option("Determines everything random.", low=0, high=2**63 - 1)] = 0
    log_every: Annotated[int, Option("Steps between lines of the log.", low=1)] = 10
    save_every_s: Annotated[float, Option("Seconds between checkpoints.", above=0)] = 180.0
    tensorboard: Annotated[bool, Option("Also write the log for TensorBoard, to OUT/tensorboard.")] = False
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.warmup_epochs < self.epochs:
            raise BlvnetError(
                f"warmup_epochs ({self.warmup_epochs}) must be fewer than epochs ({self.epochs})"
            )
        if self.accumulate > self.batch_size:
            raise BlvnetError(f"a batch of {self.batch_size} has no {self.accumulate} parts to accumulate")
        if self.lr_steps and self.schedule is not Schedule.STEP:
            raise BlvnetError("lr_steps needs --schedule step")
        if list(self.lr_steps) != sorted(self.lr_steps) or any(epoch <= 0 for epoch in self.lr_steps):
            raise BlvnetError(f"lr_steps must be epochs in rising order, not {self.lr_steps}")
        if self.lr_steps and self.lr_steps[-1] >= self.epochs:
            raise BlvnetError(f"lr_steps must be before the end of epoch {self.epochs}, not {self.lr_steps}")
        if self.compile and self.checkpointing:
            raise BlvnetError("--compile does not go with --checkpointing; leave one of them out")

    def decay_epochs(self) -> tuple[float, ...]:
        """The epochs after which the step schedule divides the learning rate."""
        return self.lr_steps or tuple(part * self.epochs for part in DEFAULT_STEPS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists, for checkpoints and logs."""
        return {name: plain(value) for name, value in asdict(self).items()}

    def continues(self, options: Mapping[str, Any]) -> bool:
        """Whether a run with these options (a `to_dict`) can be resumed with this configuration.

        The options that only affect speed and logging may differ. An option that did not exist in the run's
        version counts as its default.
        """
        return not self.differences(options)

    def differences(self, options: Mapping[str, Any]) -> list[str]:
        """The names of the options that keep a run with these options from being resumed."""
        free = {"workers", "log_every", "save_every_s", "tensorboard"}
        defaults, now = TrainConfig().to_dict(), self.to_dict()
        before = defaults | dict(options)
        before["augmentation"] = asdict(Augmentation()) | before["augmentation"]
        names = sorted((now.keys() | before.keys()) - free)
        return [name for name in names if name not in before or name not in now or before[name] != now[name]]


def plain(value: Any) -> Any:
    """A field's value as it is written in JSON and YAML."""
    if isinstance(value, tuple):
        return list(value)
    return value.value if isinstance(value, StrEnum) else value


def default_warmup_epochs(epochs: int) -> float:
    """One epoch of warm-up, or a tenth of a run's only epoch."""
    return 1.0 if epochs > 1 else 0.1

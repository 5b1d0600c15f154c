"""Initial weights from another network's checkpoint: ImageNet weights, or a video network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from model_export.checkpoints.checkpoint import listed, read_checkpoint
from model_export.checkpoints.torch_file import CheckpointError
from model_export.networks.config import ModelConfig

FIRST_KERNEL = 7  # pixels; convolutions that take frames have kernels at least this large


@dataclass
class InitReport:
    """What `initialise_from` did with the tensors of a network and of a file.

    Attributes:
        source: the file, and the network in it.
        copied: tensors that were copied unchanged.
        adapted: tensors that were copied into another shape, and how.
        fresh: tensors that keep their random initial values, and why.
        unused: tensors of the file that the network does not have.
        folded: whether the batch normalisations have no statistics yet, see `Checkpoint.folded`.
    """

    source: str
    copied: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    folded: bool = False

    def lines(self) -> list[str]:
        """The report as text, one line for each kind of outcome."""
        lines = [f"initialised from {self.source}: {len(self.copied)} tensors copied"]
        for title, tensors in (("adapted", self.adapted), ("not loaded", self.fresh)):
            for reason in dict.fromkeys(tensors.values()):
                names = [name for name, given in tensors.items() if given == reason]
                lines.append(f"{title} ({reason}): {listed(names)}")
        if self.unused:
            lines.append(f"left out of the file: {listed(self.unused)}")
        return lines

    def to_json(self) -> dict[str, object]:
        """The report for the run's log and its checkpoints."""
        return {
            "source": self.source,
            "copied": len(self.copied),
            "adapted": self.adapted,
            "not_loaded": self.fresh,
            "left_out": self.unused,
        }


def initialise_from(
    network: nn.Module, config: ModelConfig, path: Path, labels: Sequence[str] | None = None
) -> InitReport:
    """Fill a fresh network from another's checkpoint, in place.

    The classifier is copied only if the file records the same `labels` in the same order; otherwise its
    outputs stand for other classes. Taps that are not in the file keep their values. Kernels are adapted to
    other input channels (`fit_channels`) and to 3D (`inflate`). Weights for the big input of the dual stem
    that the file lacks are copied from those for the little input.

    Raises:
        CheckpointError: the file holds a network with other blocks or channels.
    """
    checkpoint = read_checkpoint(path).averaged()
    file_taps = checkpoint.taps or config.taps
    file_labels = checkpoint.training.get("labels")
    same_labels = labels is not None and file_labels is not None and list(file_labels) == list(labels)
    report = InitReport(f"{path} ({checkpoint.describe()})", folded=checkpoint.folded)
    used: set[str] = set()
    for key, target in network.state_dict().items():
        names = checkpoint.naming.names(key, file_taps)
        of_little_input = not set(names) <= checkpoint.weights.keys()
        if of_little_input:
            names = checkpoint.naming.names(key.replace("stem.big_", "stem."), file_taps)
        if not set(names) <= checkpoint.weights.keys():
            report.fresh[key] = "not in the file"
            continue
        if key.startswith("fc.") and not same_labels:
            report.fresh[key] = "other labels" if file_labels is not None else "labels unknown"
            continue
        used.update(names)
        source = checkpoint.tensor(names)
        value, how = _fit(source, target)
        if value is None and key.endswith("taps"):
            report.fresh[key] = f"{source.shape[0]} taps in the file"
        elif value is None:
            raise CheckpointError(
                f"{path} does not fit {config.architecture}: {names[0]} is {tuple(source.shape)}, "
                f"the network's is {tuple(target.shape)} (the file holds {checkpoint.describe()})"
            )
        else:
            target.copy_(value)
            if of_little_input:
                how = "copied from the little input" if how is None else f"{how}, from the little input"
            if how is None:
                report.copied.append(key)
            else:
                report.adapted[key] = how
    report.unused = sorted(name for name in checkpoint.weights if name not in used)
    # Only taps, the classifier and batch counters may be missing; only a classifier may be left over.
    optional = ("taps", "num_batches_tracked")
    missing = [key for key in report.fresh if not key.startswith("fc.") and not key.endswith(optional)]
    left_over = [name for name in report.unused if "fc." not in name]
    problems = [f"it lacks {listed(missing)}"] if missing else []
    problems += [f"it also has {listed(left_over)}"] if left_over else []
    if problems:
        raise CheckpointError(
            f"{path} does not fit {config.architecture}: {'; '.join(problems)} (the file holds "
            f"{checkpoint.describe()})"
        )
    return report


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """The kernel (O, I, ...) of a first convolution for another number of input channels.

    Every new channel gets the mean of the old ones (as the authors do for optical flow), scaled by the old
    number over the new: equal inputs then give the same result, and the batch statistics stay valid.
    """
    mean = kernel.mean(dim=1, keepdim=True) * (kernel.shape[1] / channels)
    return mean.expand(-1, channels, *kernel.shape[2:]).contiguous()


def inflate(kernel: Tensor, frames: int) -> Tensor:
    """A 2D kernel (O, I, k, k) -> 3D (O, I, frames, k, k), divided by the frames.

    A video of one repeated image then gives the result of the image (Carreira and Zisserman, arXiv
    1705.07750).
    """
    return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _fit(source: Tensor, target: Tensor) -> tuple[Tensor | None, str | None]:
    """`source` in the shape of `target` and how it was adapted; None if it does not fit."""
    if source.shape == target.shape:
        return source, None
    steps = []
    if source.dim() == 4 and target.dim() == 5:
        source = inflate(source, target.shape[2])
        steps.append("2D to 3D")
    same_kernel = source.dim() >= 4 and source.shape[2:] == target.shape[2:]
    if (
        same_kernel
        and source.shape[0] == target.shape[0]
        and source.shape[1] != target.shape[1]
        and source.shape[-1] >= FIRST_KERNEL
    ):
        steps.append(f"{source.shape[1]} to {target.shape[1]} channels")
        source = fit_channels(source, target.shape[1])
    return (source, ", ".join(steps)) if source.shape == target.shape else (None, None)

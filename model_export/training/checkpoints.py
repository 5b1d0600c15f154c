"""The checkpoints of a run: `last.pt`, to resume from, and `best.pt`, to evaluate and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model_export.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from model_export.datasets import Listing
from model_export.metrics import Metric
from model_export.networks.config import ModelConfig
from model_export.training.config import TrainConfig
from model_export.training.optimizer import Plateau
from model_export.training.step import TrainStep
from service.clip.spec import ClipSpec
from service.errors import BlvnetError
from service.packages.manifest import Scores, inputs_to_json

BEST_FILE = "best.pt"
LAST_FILE = "last.pt"


@dataclass
class RunState:
    """The progress of a run, which a checkpoint holds in addition to the network and the `TrainStep`.

    `best` is the highest value of the metric so far.
    """

    step: int = 0
    best: float = -1.0
    elapsed_s: float = 0.0
    plateau: Plateau = field(default_factory=Plateau)


@dataclass(frozen=True)
class RunCheckpoints:
    """Saves and restores a run.

    Attributes:
        folder: the run's folder.
        train_step: the network, its optimiser and its average.
        model: the network's configuration.
        clip: the clip that the network gets.
        listing: the training split, for labels and their symmetry.
        config: the run's options.
        origin: data set, folder, held-out group and whether clips are cached, as plain values.
        processes: number of processes that train together.
    """

    folder: Path
    train_step: TrainStep
    model: ModelConfig
    clip: ClipSpec
    listing: Listing
    config: TrainConfig
    origin: dict[str, Any]
    processes: int = 1

    @property
    def metric(self) -> Metric:
        """The metric that the best weights are chosen by."""
        return Metric.of(multi_label=self.listing.multi_label)

    @property
    def scores(self) -> Scores:
        """How logits become scores."""
        return Scores.SIGMOID if self.listing.multi_label else Scores.SOFTMAX

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches, of all processes together, in the training split."""
        return len(self.listing.examples) // (self.config.batch_size * self.processes)

    def save(self, name: str, state: RunState) -> None:
        """Write a checkpoint; the previous one stays until the new one is complete.

        `best.pt` has the averaged weights of a run with `ema`, `last.pt` both.

        Raises:
            BlvnetError: the file cannot be written.
        """
        training: dict[str, Any] = {
            **self.origin,
            "labels": list(self.listing.labels),
            "mirrored": list(self.listing.symmetry.mirrored),
            "clip": clip_to_json(self.clip),
            "options": self.config.to_dict(),
            "step": state.step,
            self.metric.best_key: state.best,
            "elapsed_s": state.elapsed_s,
            "plateau": asdict(state.plateau),
            "processes": self.processes,
            "steps_per_epoch": self.steps_per_epoch,
        }
        if self.scores is not Scores.SOFTMAX:
            training["scores"] = self.scores.value
        network = self.train_step.averaged
        if name == LAST_FILE:
            training |= self.train_step.state_dict()
            network = self.train_step.network
        save_checkpoint(self.folder / name, self.model, network.state_dict(), training)

    def restore(self) -> RunState:
        """Load `last.pt` into the network, the optimiser and the average.

        Raises:
            BlvnetError: there is none, or it belongs to another run: other options, labels, clip, network,
                number of processes, mirror images, source of clips, held-out group or steps per epoch.
        """
        checkpoint = read_checkpoint(self.folder / LAST_FILE)
        training = checkpoint.training
        differences = self.config.differences(training.get("options", {}))
        same = {
            "network": checkpoint.config == self.model,
            "clip": training.get("clip") == clip_to_json(self.clip),
            "labels": training.get("labels") == list(self.listing.labels),
            "number of labels per video": training.get("scores", Scores.SOFTMAX) == self.scores,
            f"options ({', '.join(differences)})": not differences,
            "number of processes": training.get("processes", 1) == self.processes,
            "mirror image of a label": _equal(training, "mirrored", list(self.listing.symmetry.mirrored)),
            # Cached clips have the centre crop only.
            "source of clips (--cached or --no-cached)": _equal(
                training, "cached", self.origin.get("cached")
            ),
            # The run would validate on videos that it has learnt from.
            "held-out group": _equal(training, "hold_out", self.origin.get("hold_out")),
            # The step is also the place in the data and in the schedule.
            "number of steps per epoch": _equal(training, "steps_per_epoch", self.steps_per_epoch),
        }
        for what, equal in same.items():
            if not equal:
                raise BlvnetError(
                    f"{checkpoint.path} was written by a run with another {what}; give the same again"
                )
        needed = {"optimizer", "step", "elapsed_s", self.metric.best_key}
        if self.train_step.average is not None:
            needed.add("average")
        if missing := sorted(needed - training.keys()):
            raise BlvnetError(
                f"{checkpoint.path} has no {missing[0]} to resume from, so no run wrote it as {LAST_FILE}: "
                "start another run from it with --init"
            )
        self.train_step.network.load_state_dict(checkpoint.weights)
        self.train_step.load_state_dict(training)
        plateau = Plateau(**training.get("plateau", {}))
        return RunState(training["step"], training[self.metric.best_key], training["elapsed_s"], plateau)


def _equal(training: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether a checkpoint has this value; those of earlier versions do not say."""
    return name not in training or training[name] == value


def clip_to_json(spec: ClipSpec) -> dict[str, Any]:
    """Describe the clip that a network was trained on as a package's manifest does."""
    return {
        "frames": spec.frames,
        "sampling": spec.sampling.value,
        "stride": spec.stride,
        "inputs": inputs_to_json(spec),
    }

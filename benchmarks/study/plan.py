"""The rows of the study, in the order in which they run: the most informative first.

A row is one network on one task. Its first seed is trained with each of the row's learning rates; the rate
with the best validation top-1 at the end is that of all other seeds. Rows that change one property of a
network (frames, stem, taps) take its learning rate; so do, on motions, the networks of one family. On
appearance, bLVNets and I3D take the rate of their family on motions. A row that starts from another row
takes the weights of the same seed there, and the learning rate of that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from model_export.networks.temporal import TamInit
from model_export.synthetic.tasks.names import Task

RATES: Final = (0.003, 0.001, 0.01)
EPOCHS: Final = 8
SIZE: Final = 32
FRAMES: Final = 8
SEEDS: Final = 3
MORE_SEEDS: Final = 5  # seeds of the rows that question 4 compares
REAL: Final = "real"
REAL_EPOCHS: Final = 60


@dataclass(frozen=True)
class Row:
    """One network on one task.

    Attributes:
        name: `GROUP/NETWORK`, which selects rows and names the file of the results.
        questions: the paper's questions that it answers.
        task: the data; None for real footage.
        architecture: a name of `model_export.networks.registry`.
        frames: T.
        tam_init: initial taps.
        seeds: number of seeds.
        epochs: passes over the training examples.
        rates: learning rates to choose from, if the row does not take the rate of another row.
        rate_from: the row whose chosen learning rate is used; by default that of `starts_from`.
        starts_from: the row whose final weights a run starts from.
        size: side of the (little) input in pixels.
    """

    name: str
    questions: tuple[str, ...]
    task: Task | None
    architecture: str
    frames: int = FRAMES
    tam_init: TamInit = TamInit.SHIFT
    seeds: int = SEEDS
    epochs: int = EPOCHS
    rates: tuple[float, ...] = RATES
    starts_from: str | None = None
    rate_from: str | None = None
    size: int = SIZE

    @property
    def group(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]

    @property
    def network(self) -> str:
        """The second part of the name."""
        return self.name.partition("/")[2]


# Network of a row -> its architecture and initial taps; in the order in which they run.
NETWORKS: Final[dict[str, tuple[str, TamInit]]] = {
    "blvnet-tam": ("blvnet-tam-mini", TamInit.SHIFT),
    "blvnet-tsm": ("blvnet-tsm-mini", TamInit.SHIFT),
    "blvnet": ("blvnet-mini", TamInit.SHIFT),
    "tsn": ("tsn-mini", TamInit.SHIFT),
    "blvnet-tam-paper": ("blvnet-tam-mini", TamInit.PAPER),
    "tsm": ("tsm-mini", TamInit.SHIFT),
    "tam": ("tam-mini", TamInit.SHIFT),
    "tam-paper": ("tam-mini", TamInit.PAPER),
    "i3d": ("i3d-mini", TamInit.SHIFT),
}
# ResNets learn events more slowly: with the frames and passes of the other rows, TAM stays at chance
# (`events/tam-8-frames`). With 4 frames they relate as many moments as a bLVNet with 8, which fuses pairs.
SLOW: Final = tuple((Task.EVENTS, network) for network in ("tsm", "tam", "tam-paper", "i3d"))
RESNET_FRAMES, RESNET_EPOCHS = 4, 12
WITHOUT_TIME: Final = ("tsn", "blvnet")  # three seeds are enough for networks at chance
# Outlines take many passes to learn, as the curves in docs/study.md show.
APPEARANCE_FRAMES, APPEARANCE_EPOCHS = 4, 32
# Network -> the network of its family whose learning rate it takes on motions.
FAMILY: Final = {
    "blvnet": "blvnet-tam",
    "blvnet-tsm": "blvnet-tam",
    "blvnet-tam-paper": "blvnet-tam",
    "tsn": "tam",
    "tsm": "tam",
    "tam-paper": "tam",
}
# Question 1 first.
ON_MOTIONS: Final = (
    *("blvnet-tam", "blvnet", "tam", "tsn", "i3d"),
    *("blvnet-tsm", "tsm", "blvnet-tam-paper", "tam-paper"),
)
# Network on appearance -> its architecture, and the row whose learning rate it takes; without one, its own.
ON_APPEARANCE: Final[dict[str, tuple[str, str | None]]] = {
    "blvnet-tam": ("blvnet-tam-mini", "motions/blvnet-tam"),
    "tsn": ("tsn-mini", None),
    "blvnet": ("blvnet-mini", "motions/blvnet-tam"),
    "i3d": ("i3d-mini", "motions/i3d"),
    "blvnet-tam-shared": ("blvnet-tam-mini-shared", "motions/blvnet-tam"),
}


def rows() -> list[Row]:
    """All rows, in the order in which they run."""
    return [
        *network_rows(Task.EVENTS, tuple(NETWORKS)),
        Row("events/tam-8-frames", ("2",), Task.EVENTS, "tam-mini", seeds=1),
        *frame_rows(),
        *network_rows(Task.MOTIONS, ON_MOTIONS),
        *appearance_rows(),
        *variant_rows(),
        *real_rows(),
    ]


def network_rows(task: Task, networks: Sequence[str]) -> list[Row]:
    """Questions 2 and 4: every temporal module, in both kinds of network."""
    return [
        Row(
            f"{task}/{network}",
            ("2", "4") if task is Task.EVENTS else ("1", "2", "4"),
            task,
            NETWORKS[network][0],
            tam_init=NETWORKS[network][1],
            rate_from=None if task is Task.EVENTS else _rate_of_family(task, network, networks),
            seeds=SEEDS if network in (*WITHOUT_TIME, "i3d") else MORE_SEEDS,
            frames=RESNET_FRAMES if (task, network) in SLOW else FRAMES,
            epochs=RESNET_EPOCHS if (task, network) in SLOW else EPOCHS,
        )
        for network in networks
    ]


def _rate_of_family(task: Task, network: str, networks: Sequence[str]) -> str | None:
    """The row whose learning rate a network takes, if that row is one of the task's."""
    leader = FAMILY.get(network)
    return f"{task}/{leader}" if leader in networks else None


def frame_rows() -> list[Row]:
    """Question 3: more frames, from scratch with equal passes, progressively, and at equal GMACs."""
    tam, others = "blvnet-tam-mini", (4, 16, 32)  # 8 is events/blvnet-tam
    scratch = [_on_events(f"frames/blvnet-tam-{frames}", tam, frames) for frames in others]
    # All four stages together have the passes of a row from scratch.
    stage = {frames: f"frames/blvnet-tam-{frames}-progressive" for frames in (4, 8, 16, 32)}
    progressive = [
        _on_events(name, tam, frames, epochs=EPOCHS // len(stage), starts_from=stage.get(frames // 2))
        for frames, name in stage.items()
    ]
    equal_gmacs = [
        _on_events(f"frames/blvnet-tam-{frames}-equal-gmacs", tam, frames, epochs=EPOCHS * FRAMES // frames)
        for frames in others
    ]
    # TSN is at chance with any number of frames; several seeds for the contrast only.
    tsn = [
        _on_events(f"frames/tsn-{frames}", "tsn-mini", frames, seeds=SEEDS if frames == max(others) else 1)
        for frames in others
    ]
    return [*scratch, *progressive, *equal_gmacs, *tsn]


def _on_events(
    name: str,
    architecture: str,
    frames: int,
    *,
    seeds: int = SEEDS,
    epochs: int = EPOCHS,
    starts_from: str | None = None,
) -> Row:
    return Row(
        name,
        ("3",),
        Task.EVENTS,
        architecture,
        frames=frames,
        seeds=seeds,
        epochs=epochs,
        starts_from=starts_from,
        rate_from="events/tsn" if architecture == "tsn-mini" else "events/blvnet-tam",
    )


def appearance_rows() -> list[Row]:
    """Question 1, and the control: what does a temporal module add if time carries no information?"""
    return [
        Row(
            f"appearance/{network}",
            ("stem",) if network.endswith("-shared") else ("1",),
            Task.APPEARANCE,
            architecture,
            frames=APPEARANCE_FRAMES,
            epochs=APPEARANCE_EPOCHS,
            rate_from=rate_from,
        )
        for network, (architecture, rate_from) in ON_APPEARANCE.items()
    ]


def variant_rows() -> list[Row]:
    """The shared stem of the paper against the dual one, and other numbers of taps."""
    shared = [
        Row(
            f"{task}/blvnet-tam-shared",
            ("stem",),
            task,
            "blvnet-tam-mini-shared",
            rate_from=f"{task}/blvnet-tam",
        )
        for task in (Task.EVENTS, Task.MOTIONS)
    ]
    taps = [
        Row(
            f"events/blvnet-tam-{taps}-taps",
            ("taps",),
            Task.EVENTS,
            f"blvnet-tam-mini-blend{taps}",
            rate_from="events/blvnet-tam",
        )
        for taps in (1, 5, 7)
    ]
    return [*shared, *taps]


def real_rows() -> list[Row]:
    """Real footage: each network fine-tuned from its weights of the motions task."""
    return [
        Row(
            f"{REAL}/{network}",
            (REAL,),
            None,
            architecture,
            tam_init=init,
            epochs=REAL_EPOCHS,
            starts_from=f"motions/{network}",
            size=48,
        )
        for network, (architecture, init) in NETWORKS.items()
    ]

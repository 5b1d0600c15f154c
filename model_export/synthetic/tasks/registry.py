"""The tasks of `blvnet synth --task`: their labels, symmetries and renderers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from model_export.synthetic import labels as simple
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import FORWARD, SPLITS, Split
from model_export.synthetic.tasks import air_drawing, appearance, events
from model_export.synthetic.tasks.hands import render_hands
from model_export.synthetic.tasks.motions import render_hard, render_simple
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.scene import Frames


@dataclass(frozen=True)
class TaskSpec:
    """A task.

    Attributes:
        labels: the names of the classes, in the order of the outputs.
        mirrored: the label of a video of each label with its frames flipped left to right.
        reversed: the label of a video of each label with its frames in reverse order.
        render: renders a video of a label, from a generator, for a split and a format.
        fit: adapts a drawn format to the task.
        look: the label whose seed a video uses; labels with the same `look` show the same scene for a seed.
    """

    labels: tuple[str, ...]
    mirrored: Mapping[str, str]
    reversed: Mapping[str, str]
    render: Callable[[Rng, str, Split, VideoFormat], Frames]
    look: Callable[[str], str]
    fit: Callable[[VideoFormat], VideoFormat] = lambda layout: layout


_MOTION_TABLES: Final = (simple.LABELS, simple.MIRRORED, simple.REVERSED)
TASKS: Final[dict[Task, TaskSpec]] = {
    Task.SIMPLE: TaskSpec(*_MOTION_TABLES, render_simple, FORWARD.__getitem__),
    Task.MOTIONS: TaskSpec(*_MOTION_TABLES, render_hard, FORWARD.__getitem__),
    Task.HANDS: TaskSpec(*_MOTION_TABLES, render_hands, FORWARD.__getitem__),
    Task.EVENTS: TaskSpec(
        events.LABELS,
        events.MIRRORED,
        events.REVERSED,
        events.render_events,
        lambda _: events.LABELS[0],
        events.format_of_events,
    ),
    Task.APPEARANCE: TaskSpec(
        appearance.LABELS, appearance.UNCHANGED, appearance.UNCHANGED, appearance.render_appearance, str
    ),
    Task.AIR_DRAWING: TaskSpec(
        air_drawing.LABELS,
        air_drawing.MIRRORED,
        air_drawing.REVERSED,
        air_drawing.render_air_drawing,
        lambda label: FORWARD.get(label, label),
    ),
}


def seed_of(task: Task, label: str, split: Split, seed: tuple[int, ...]) -> list[int]:
    """The numbers that a video's generator starts from."""
    spec = TASKS[task]
    numbers = [*seed, SPLITS.index(split), spec.labels.index(spec.look(label))]
    return numbers if task is Task.SIMPLE else [*numbers, list(Task).index(task)]

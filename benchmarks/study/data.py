"""Clips of the study: drawn by the renderers of `blvnet synth` and kept as arrays, without a video codec.

A clip is rendered with 32 frames at twice the side that the networks take, and reduced by averaging 2 x 2
pixels. So a network gets the same input as from a video file, except for the traces of the codec. Arrays are
cached in a folder; the name of a file contains everything that determines it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_export.datasets import Example, Listing
from model_export.datasets.symmetry import Symmetry, label_indices
from model_export.progress import counting
from model_export.synthetic.drawing.painting import FrameSize
from model_export.synthetic.drawing.render import render_video
from model_export.synthetic.encode import Encoding
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import Split
from model_export.synthetic.tasks.events import ORDERS, PARTS
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS
from model_export.training.clips.batches import Draw, SplitData
from service.clip.sampling import uniform_indices
from service.clip.spec import ClipSpec
from service.packages.files import atomic_write

# Orders of each look in a batch: with one, no network is better than chance after 600 steps.
TOGETHER = 8
FRAMES = 32  # frames of a rendered clip; a multiple of every T of the study
SEED = 5_301_912  # not used by any other command of the project
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Amount:
    """Number of examples in an epoch or an evaluation, and number of clips (takes) of each example.

    Training draws one take of each example in an epoch, which the trainer calls a phase.
    """

    examples: int
    takes: int = 1


class RenderedClips:
    """The clips of a split, as a source for the trainer.

    Args:
        task: the task that the labels belong to.
        pixels: uint8 `(clips, 32, S, S, 3)`; for events `(looks, 4, 8, S, S, 3)`, in which each label is an
            order of the four parts.
        amount: examples and takes.
        clip: the clip that the network gets.
    """

    crops = 1

    def __init__(self, task: Task, pixels: Pixels, amount: Amount, clip: ClipSpec) -> None:
        self.task = task
        self.pixels = pixels
        self.amount = amount
        self.phases = amount.takes
        self.together = TOGETHER if task is Task.EVENTS else 1
        self.clip = clip
        self.chosen = np.array(uniform_indices(FRAMES, clip.frames))

    def __len__(self) -> int:
        return self.amount.examples

    def load(self, draw: Draw, example: Example) -> tuple[Pixels, ...]:
        """Return all T frames of a take for each input, uint8 `(T, size, size, 3)`."""
        if self.task is Task.EVENTS:
            look = draw.index // len(ORDERS) * self.phases + draw.phase
            parts = self.pixels[look % len(self.pixels)]
            frames = parts[list(ORDERS[example.label])].reshape(FRAMES, *parts.shape[2:])
        else:
            frames = self.pixels[draw.index * self.phases + draw.phase]
        frames = frames[self.chosen]
        return tuple(frames if item.size == frames.shape[1] else _halved(frames) for item in self.clip.inputs)


def split_data(task: Task, split: Split, amount: Amount, clip: ClipSpec, folder: Path) -> SplitData:
    """Open the clips of a split, and render those that are not in the folder."""
    side = max(item.size for item in clip.inputs)
    spec = TASKS[task]
    rounds = -(-amount.examples // len(spec.labels))
    labels = [
        label for number in range(rounds) for label in _label_order(task, split, len(spec.labels), number)
    ]
    examples = tuple(
        Example(Path(f"{task}-{split}-{index}"), label)
        for index, label in enumerate(labels[: amount.examples])
    )
    symmetry = Symmetry(label_indices(spec.labels, spec.mirrored), label_indices(spec.labels, spec.reversed))
    # A digest of one clip is in the name, so that a change of the renderer makes new files.
    digest = hashlib.sha256(_clip(task, split, spec.labels[0], 0, side).tobytes()).hexdigest()[:8]
    path = folder / f"{task}-{split}-{amount.examples}x{amount.takes}-{side}px-{digest}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        clips = render_clips(task, split, amount, side)
        with atomic_write(path) as file:
            np.save(file, clips)
    pixels = np.load(path, mmap_mode="r")
    return SplitData(Listing(spec.labels, examples, symmetry), RenderedClips(task, pixels, amount, clip))


def _label_order(task: Task, split: Split, count: int, look: int) -> list[int]:
    """The order of the labels of a look.

    It is shuffled for the training of events, so that each look puts other orders side by side in a batch.
    """
    if task is not Task.EVENTS or split != "train":
        return list(range(count))
    return [int(label) for label in np.random.default_rng((SEED, look)).permutation(count)]


def render_clips(task: Task, split: Split, amount: Amount, side: int) -> Pixels:
    """Render the takes of every example, or for events the looks of all examples: see `RenderedClips`."""
    names = TASKS[task].labels
    if task is Task.EVENTS:
        looks = -(-amount.examples // len(names)) * amount.takes
        labels = [names[0]] * looks  # its parts are in the order of the kinds
        shape: tuple[int, ...] = (looks, PARTS, FRAMES // PARTS, side, side, 3)
    else:
        labels = [names[index % len(names)] for index in range(amount.examples) for _ in range(amount.takes)]
        shape = (len(labels), FRAMES, side, side, 3)
    clips = np.empty(shape, np.uint8)
    with counting(f"rendering {task} {split}", len(labels)) as tick:
        for index, label in enumerate(labels):
            clips[index] = _clip(task, split, label, index, side).reshape(shape[1:])
            tick(1)
    return clips


def _clip(task: Task, split: Split, label: str, index: int, side: int) -> Pixels:
    """Render one clip, uint8 `(32, side, side, 3)`."""
    layout = VideoFormat(FrameSize(2 * side, 2 * side), FRAMES, Encoding("h264", Fraction(10), 20, 0, 12))
    return _halved(render_video(label, split, SEED, index, task=task, layout=layout).frames)


def _halved(frames: Pixels) -> Pixels:
    """Average 2 x 2 pixels of `(T, S, S, 3)`."""
    count, side, _, channels = frames.shape
    blocks = frames.reshape(count, side // 2, 2, side // 2, 2, channels)
    return np.asarray((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4, dtype=np.uint8)

"""Views of several examples in batches, with bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.datasets import Example
from model_export.datasets.reading import Unreadable, read_views
from model_export.evaluation import reading
from model_export.evaluation.reading import Part, batched, read_parts
from service.clip.spec import ClipSpec, Frames, InputSpec
from tests.support.clips import numbered_clip

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, 32, 32),))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Three videos, the second of which cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    for index, content in enumerate((numbered_clip(frames=9), b"no video", numbered_clip(frames=12))):
        (folder / f"{index}.mp4").write_bytes(content)
    return [Example(folder / f"{index}.mp4", 0) for index in range(3)]


@pytest.mark.parametrize("part_bytes", [reading.PART_BYTES, 1], ids=["whole", "clip by clip"])
@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_batches_hold_every_view_once(
    examples: list[Example], part_bytes: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PART_BYTES", part_bytes)
    found: dict[int, dict[int, np.ndarray]] = {0: {}, 2: {}}
    sizes = []
    for batch in batched(read_parts(examples, SPEC, clips=2, crops=3, jobs=2), size):
        sizes.append(len(batch.examples))
        for example, view, frames in zip(batch.examples, batch.views, batch.inputs["frames"], strict=True):
            found[example][view] = frames
    for index, views in found.items():
        expected = read_views(examples[index], SPEC, clips=2, crops=3)["frames"]
        assert sorted(views) == list(range(6))
        np.testing.assert_array_equal(np.stack([views[number] for number in range(6)]), expected)
    assert sum(sizes) == 12
    assert set(sizes[:-1]) <= {size}  # only the last one is smaller, also across examples


def test_unreadable_example_is_a_part_with_the_reason(examples: list[Example]) -> None:
    parts = list(read_parts(examples, SPEC, clips=1, crops=1, jobs=1))
    assert [part.last for part in parts] == [True] * 3
    assert isinstance(parts[1].inputs, Unreadable)
    assert parts[1].inputs.path.name == "1.mp4"


def test_large_examples_are_not_read_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def read(example: Example, *_: object, **__: object) -> dict[str, np.ndarray]:
        started.append(example.label)
        return {"frames": np.zeros((1, 1), np.uint8)}

    monkeypatch.setattr(reading, "read_views", read)
    monkeypatch.setattr(reading, "AHEAD_BYTES", 1)
    parts = read_parts([Example(Path("x"), index) for index in range(9)], SPEC, clips=1, crops=1, jobs=8)
    assert next(parts).index == 0
    assert max(started) <= 1


def test_batches_of_parts_keep_the_numbers_of_the_views() -> None:
    part = Part(7, 3, {"frames": np.zeros((3, 1), np.uint8)}, True)
    (batch,) = batched([part], 8)
    assert batch.examples.tolist() == [7, 7, 7]
    assert batch.views.tolist() == [3, 4, 5]

"""Batches: draws depend only on the generator, and cached and decoded clips are equal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model_export.datasets import Example, Listing, Symmetry
from model_export.training.clips.batches import (
    BatchLoader,
    CachedClips,
    ClipSource,
    DecodedClips,
    Draw,
    SplitData,
    epoch_draws,
    plain_draws,
)
from model_export.training.clips.frame_cache import open_cache
from service.clip.spec import ClipSpec, Frames, InputSpec
from tests.support.clips import numbered_clip, read_numbers

SPEC = ClipSpec(
    frames=4, inputs=(InputSpec("little", Frames.EVEN, 32, 32), InputSpec("big", Frames.ODD, 16, 16))
)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Three clips of 8, 12 and 16 numbered frames, labels 0, 1 and 0."""
    clips = []
    for index, frames in enumerate((8, 12, 16)):
        path = tmp_path / f"{index}.mp4"
        path.write_bytes(numbered_clip(frames=frames))
        clips.append(Example(path, index % 2))
    return Listing(("a", "b"), tuple(clips), Symmetry((None, None), (None, None)))


def decoded(listing: Listing, phases: int = 1, crops: int = 1) -> DecodedClips:
    return DecodedClips(len(listing.examples), SPEC, phases=phases, crops=crops)


def cached(listing: Listing, folder: Path, phases: int) -> CachedClips:
    cache = open_cache(listing.examples, SPEC, phases, folder, jobs=1, advance=lambda _: None)
    return CachedClips(cache, range(len(listing.examples)))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_epoch_draws_every_clip_at_most_once_in_full_batches(listing: Listing) -> None:
    batches = epoch_draws(decoded(listing, phases=3, crops=3), 1, generator(0))
    assert sorted(draw.index for batch in batches for draw in batch) == [0, 1, 2]
    assert [len(batch) for batch in epoch_draws(decoded(listing), 2, generator(0))] == [2]


def test_epochs_differ_and_repeat_with_their_generator(listing: Listing) -> None:
    source = decoded(listing, phases=5, crops=3)
    epochs = [epoch_draws(source, 1, generator(seed)) for seed in (1, 1, 2, 3)]
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2] or epochs[0] != epochs[3]


def test_examples_that_belong_together_share_a_batch_and_a_phase() -> None:
    class Pairs(DecodedClips):
        together = 2

    source = Pairs(9, SPEC, phases=100, crops=1)
    batches = epoch_draws(source, 4, generator(0))
    assert [len(batch) for batch in batches] == [4, 4]
    drawn = [draw for batch in epoch_draws(source, 1, generator(0)) for draw in batch]
    assert sorted(draw.index for draw in drawn) == list(range(9))
    phases = [{draw.phase for draw in drawn if draw.index // 2 == pair} for pair in range(5)]
    assert all(len(found) == 1 for found in phases)
    assert len(set.union(*phases)) > 1
    order = [draw.index for draw in drawn]
    assert all(order[at + 1] == index + 1 for at, index in enumerate(order) if index % 2 == 0 and index < 8)
    assert [order.index(pair) for pair in (0, 2, 4, 6, 8)] != sorted(
        order.index(pair) for pair in (0, 2, 4, 6, 8)
    )


def test_plain_draws_have_every_example_in_order_at_its_middle(listing: Listing) -> None:
    draws = plain_draws(decoded(listing, phases=3, crops=3), 2)
    assert draws == [[Draw(0, 1, 1), Draw(1, 1, 1)], [Draw(2, 1, 1)]]


def test_cached_and_decoded_clips_give_the_same_batches(listing: Listing, tmp_path: Path) -> None:
    draws = [[Draw(2, 1), Draw(0, 0)], [Draw(1, 1)]]
    sources: list[ClipSource] = [cached(listing, tmp_path / "cache", 2), decoded(listing, phases=2)]
    from_cache, from_files = (
        list(BatchLoader(SplitData(listing, source), workers=0).load(draws)) for source in sources
    )
    for first, second in zip(from_cache, from_files, strict=True):
        assert torch.equal(first.labels, second.labels)
        assert all(torch.equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
    assert read_numbers(from_cache[0].frames[0][0].numpy()) == [3, 7, 11, 15]
    assert from_cache[0].labels.tolist() == [0, 0]


def test_worker_processes_load_the_same_batches(listing: Listing) -> None:
    draws = [[Draw(0), Draw(1)], [Draw(2)]]
    alone = list(BatchLoader(SplitData(listing, decoded(listing)), workers=0).load(draws))
    together = list(BatchLoader(SplitData(listing, decoded(listing)), workers=1).load(draws))
    assert [batch.labels.tolist() for batch in together] == [[0, 1], [0]]
    assert all(torch.equal(a.frames[0], b.frames[0]) for a, b in zip(alone, together, strict=True))


def test_loading_leaves_the_global_random_state_alone(listing: Listing) -> None:
    before = torch.get_rng_state()
    list(BatchLoader(SplitData(listing, decoded(listing)), workers=0).load([[Draw(0)]]))
    assert torch.equal(before, torch.get_rng_state())


def test_unreadable_example_is_named_and_missing_from_its_batch(listing: Listing) -> None:
    listing.examples[1].path.write_text("no video")
    (batch,) = BatchLoader(SplitData(listing, decoded(listing)), workers=0).load(
        plain_draws(decoded(listing), 3)
    )
    assert batch.labels.tolist() == [0, 0]
    assert len(batch.frames[0]) == 2
    assert [item.path for item in batch.unreadable] == [listing.examples[1].path]
    assert "NotAVideo" in batch.unreadable[0].reason


def test_batch_of_unreadable_clips_is_empty(listing: Listing) -> None:
    listing.examples[0].path.unlink()
    (batch,) = BatchLoader(SplitData(listing, decoded(listing)), workers=0).load([[Draw(0)]])
    assert len(batch.labels) == 0
    assert "FileNotFoundError" in batch.unreadable[0].reason


CTRL_C_AT_THE_START = """
import os, signal
from model_export.training.clips.frame_cache import processes_with

signal.signal(signal.SIGINT, lambda *_: None)
context = processes_with("model_export.training.clips.batches")
os.killpg(0, signal.SIGINT)
with context.Pool(1) as pool:
    print(pool.apply(eval, ("'model_export.training.clips.batches' in __import__('sys').modules",)))
"""


def test_workers_share_what_their_server_has_imported_also_after_ctrl_c() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT_THE_START],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")

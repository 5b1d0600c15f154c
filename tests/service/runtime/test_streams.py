"""The second form of a package, one-thread runs side by side, and when it pays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.manifest import read_manifest
from service.runtime.choice import Opened, open_package
from service.runtime.config import RuntimeConfig
from service.runtime.streams import Pace
from tests.tiny_models import ONE_STREAM, TinyModel, write_package

SLOW = TinyModel(ONE_STREAM, work=1000)  # long enough for threads to matter


def opened(models: Path, provider: str = "cpu", threads: int = 2) -> Opened:
    folder = write_package(models, model=SLOW)
    return open_package(folder, read_manifest(folder), RuntimeConfig(provider, threads=threads))


@pytest.mark.parametrize("together_s", [1.5, 1.9, 30.0])
def test_streams_that_are_all_busy_pay_whatever_was_measured(together_s: float) -> None:
    pace = Pace(lone_s=1.0, together_s=together_s, streams=2)
    assert [pace.streams_pay(clips) for clips in (0, 1, 2, 3, 64)] == [False, False, True, True, True]


def test_many_streams_do_not_pay_for_a_few_clips() -> None:
    pace = Pace(lone_s=1.0, together_s=12.0, streams=16)
    assert [clips for clips in range(1, 20) if pace.streams_pay(clips)] == list(range(13, 20))


def test_what_is_carried_is_that_of_the_better_form() -> None:
    assert Pace(lone_s=0.1, together_s=0.16, streams=2).clips_per_s == pytest.approx(12.5)
    assert Pace(lone_s=0.1, together_s=0.25, streams=2).clips_per_s == pytest.approx(10)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_both_forms_are_loaded(tmp_path: Path, provider: str) -> None:
    found = opened(tmp_path, provider)
    assert found.streams is not None
    assert found.session.runtime.threads == 2
    side_by_side = found.streams.session.runtime
    assert (side_by_side.provider, side_by_side.threads, side_by_side.streams) == (provider, 1, 2)
    assert 0 < found.streams.pace.lone_s < 10
    clips = [{"frames": np.full((1, *ONE_STREAM.inputs[0].shape(8)), value, np.uint8)} for value in range(8)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(found.streams.session.run, clips))
    for clip, answer in zip(clips, answers, strict=True):
        np.testing.assert_allclose(answer.logits, found.session.run(clip).logits, atol=1e-6)
    found.close()


def test_one_thread_has_one_form(tmp_path: Path) -> None:
    assert opened(tmp_path, threads=1).streams is None

"""The one-thread form of a package for concurrent runs, and when it is faster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.engines.concurrency import LatencyProfile
from service.engines.providers import EngineConfig
from service.models.engine_selection import Opened, open_package
from service.packages.manifest import read_manifest
from tests.support.tiny_models import ONE_STREAM, TinyModel, write_package

SLOW = TinyModel(ONE_STREAM, work=1000)  # long enough for threads to matter


def opened(models: Path, provider: str = "cpu", threads: int = 2) -> Opened:
    folder = write_package(models, model=SLOW)
    return open_package(folder, read_manifest(folder), EngineConfig(provider, threads=threads))


@pytest.mark.parametrize("concurrent_latency_s", [1.5, 1.9, 30.0])
def test_concurrent_runs_are_used_when_all_are_busy_whatever_was_measured(
    concurrent_latency_s: float,
) -> None:
    profile = LatencyProfile(latency_s=1.0, concurrent_latency_s=concurrent_latency_s, concurrency=2)
    assert [profile.concurrent_is_faster(clips) for clips in (0, 1, 2, 3, 64)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_many_slow_concurrent_runs_are_not_used_for_a_few_clips() -> None:
    profile = LatencyProfile(latency_s=1.0, concurrent_latency_s=12.0, concurrency=16)
    assert [clips for clips in range(1, 20) if profile.concurrent_is_faster(clips)] == list(range(13, 20))


def test_throughput_is_that_of_the_better_form() -> None:
    assert LatencyProfile(
        latency_s=0.1, concurrent_latency_s=0.16, concurrency=2
    ).clips_per_s == pytest.approx(12.5)
    assert LatencyProfile(
        latency_s=0.1, concurrent_latency_s=0.25, concurrency=2
    ).clips_per_s == pytest.approx(10)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_both_forms_are_loaded(tmp_path: Path, provider: str) -> None:
    found = opened(tmp_path, provider)
    assert found.concurrent is not None
    assert found.session.runtime.threads == 2
    concurrent = found.concurrent.session.runtime
    assert (concurrent.provider, concurrent.threads, concurrent.concurrency) == (provider, 1, 2)
    assert 0 < found.concurrent.profile.latency_s < 10
    clips = [{"frames": np.full((1, *ONE_STREAM.inputs[0].shape(8)), value, np.uint8)} for value in range(8)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(found.concurrent.session.run, clips))
    for clip, answer in zip(clips, answers, strict=True):
        np.testing.assert_allclose(answer.logits, found.session.run(clip).logits, atol=1e-6)
    found.close()


def test_single_thread_has_one_form(tmp_path: Path) -> None:
    assert opened(tmp_path, threads=1).concurrent is None

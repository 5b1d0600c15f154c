"""The ranges of the core's settings, and what follows from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.engines.batch_sizes import MAX_BATCH, BatchSizes
from service.pipeline.core_config import CoreConfig

# Settings whose lowest and highest values are accepted.
RANGES = {
    "versions_kept": (1, 100),
    "teach_max_examples": (4, 1_000_000),
    "teach_max_models": (1, 10_000),
    "inference_threads": (1, 1024),
    "max_batch": (1, 1024),
    "batch_wait_ms": (0, 10_000),
    "self_test_s": (0.1, 3600),
    "queue_limit": (1, 100_000),
    "timelines_at_once": (1, 1024),
    "decode_workers": (1, 1024),
    "decode_memory_mb": (128, 1_000_000),
    "max_pixels": (1, 2**31 - 1),
    "max_frames": (1, 10_000_000),
    "max_decoded_pixels": (1, 10**15),
    "max_streams": (1, 1000),
    "max_edits": (1, 1_000_000),
    "max_windows": (1, 1_000_000),
    "probe_mb": (0.01, 1000),
}
# Settings that must be above 0, and their highest values.
POSITIVE = {
    "teach_max_mb": 1_000_000,
    "latency_target_s": 3600,
    "request_timeout_s": 3600,
    "timeline_timeout_s": 86_400,
    "decode_timeout_s": 3600,
    "max_duration_s": 864_000,
}


def accepts(name: str, value: float) -> bool:
    try:
        CoreConfig.model_validate({name: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("name", "ends"), RANGES.items())
def test_range_includes_its_ends(name: str, ends: tuple[float, float]) -> None:
    lowest, highest = ends
    below = lowest / 2 if 0 < lowest < 1 else lowest - 1
    values = (below, lowest, highest, highest + 1)
    assert [accepts(name, value) for value in values] == [False, True, True, False]


@pytest.mark.parametrize(("name", "highest"), POSITIVE.items())
def test_time_or_size_is_above_zero(name: str, highest: float) -> None:
    values = (0, 1e-6, highest, highest + 1)
    assert [accepts(name, value) for value in values] == [False, True, True, False]


def test_batches_have_one_clip_on_cpus_and_the_prepared_sizes_on_devices() -> None:
    default, four = CoreConfig(), CoreConfig(max_batch=4)
    assert (list(default.batch_sizes(None)), list(four.batch_sizes(None))) == ([1], [1, 2, 3, 4])
    assert list(four.batch_sizes(BatchSizes((1, 2, 8), (1.0, 1.5, 4.0)))) == [1, 2, 8]
    assert (default.max_rows, four.max_rows) == (MAX_BATCH, 4)


def test_engines_use_all_cores_unless_a_number_of_threads_is_set() -> None:
    assert CoreConfig().engine_config(6).threads == 6
    assert CoreConfig(inference_threads=2).engine_config(6).threads == 2


def test_taught_models_are_in_a_folder_of_their_own() -> None:
    assert CoreConfig().taught_models is None
    assert CoreConfig(teach_dir=Path("/t")).taught_models == Path("/t/models")


def test_limits_of_a_video_are_in_its_units() -> None:
    assert CoreConfig(probe_mb=1.5).limits.probe_bytes == 1_500_000

"""Queries: their views, and the values that are accepted. Durations of the stages."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.errors import InvalidParameter
from service.pipeline.classification import Query, Sampled, Timings


def test_a_query_has_a_view_for_each_crop_of_each_clip() -> None:
    assert [Query(clips=clips, crops=crops).views for clips, crops in ((1, 1), (2, 3), (10, 10))] == [
        1,
        6,
        100,
    ]


@pytest.mark.parametrize(
    "query",
    [Query(top_k=1), Query(top_k=100), Query(clips=10), *(Query(crops=crops) for crops in (1, 3, 5, 10))],
)
def test_values_up_to_the_limits_are_accepted(query: Query) -> None:
    query.check()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(top_k=0), "top_k must be from 1 to 100, it is 0."),
        (Query(top_k=101), "top_k must be from 1 to 100, it is 101."),
        (Query(clips=0), "clips must be from 1 to 10, it is 0."),
        (Query(clips=11), "clips must be from 1 to 10, it is 11."),
        (Query(crops=2), "crops must be one of 1, 3, 5, 10, it is 2."),
    ],
)
def test_values_beyond_the_limits_are_refused(query: Query, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        query.check()
    assert str(refused.value) == message


def test_waits_for_a_worker_and_for_a_batch_are_one_stage() -> None:
    decoded, inference = (
        SimpleNamespace(queue_ms=1.0, decode_ms=2.0),
        SimpleNamespace(queue_ms=4.0, inference_ms=8.0),
    )
    of_video = Timings.of(decoded, inference)  # type: ignore[arg-type]
    assert of_video.stages_ms() == {"decode": 2.0, "queue": 5.0, "inference": 8.0}
    of_tensors = Timings.of(None, inference)  # type: ignore[arg-type]
    assert of_tensors.stages_ms() == {"decode": 0.0, "queue": 4.0, "inference": 8.0}


def test_times_of_sampled_frames_are_rounded_to_microseconds() -> None:
    assert Sampled.of([3, 5], [1 / 3, 0.1 + 0.2]) == Sampled((3, 5), (0.333333, 0.3))

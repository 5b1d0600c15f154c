"""Batch sizes that are prepared on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from service.engines.batch_sizes import MAX_BATCH, BatchSizes, prepare_batches, repeated, sizes_up_to
from service.engines.session import EngineInfo, InferenceFailed, Inputs, Outputs, Tensor
from service.errors import PackageError
from tests.support.engines import CPU

CLIPS = {"frames": np.array([[3], [5]], np.uint8)}


class Device:
    """Returns the first number of every row, for batches that fit its memory."""

    runtime: EngineInfo = CPU
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def __init__(self, memory_rows: int = 1024) -> None:
        self.memory_rows = memory_rows

    def run(self, inputs: Inputs) -> Outputs:
        rows = inputs["frames"]
        if len(rows) > self.memory_rows:
            raise InferenceFailed("out of memory")
        return Outputs(rows.astype(np.float32), rows[:, None].astype(np.float32))

    def close(self) -> None:
        raise AssertionError("only the owner closes the session")


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_sizes_double_up_to_the_largest(most: int, sizes: tuple[int, ...]) -> None:
    assert sizes_up_to(most) == sizes


def test_larger_batches_are_worthwhile_while_throughput_grows() -> None:
    batches = BatchSizes(sizes=(1, 2, 4, 8), seconds=(0.003, 0.004, 0.0068, 0.0134))
    assert batches.rates == pytest.approx((333, 500, 588, 597), rel=0.01)
    assert batches.worthwhile() == BatchSizes((1, 2, 4), (0.003, 0.004, 0.0068))


def test_device_without_gain_from_batches_runs_single_clips() -> None:
    assert BatchSizes(sizes=(1, 2), seconds=(0.1, 0.2)).worthwhile().sizes == (1,)


def test_every_size_is_run_and_its_outputs_are_checked() -> None:
    seen: list[list[float]] = []
    found = prepare_batches(Device(), CLIPS, 4, lambda outputs: seen.append(outputs.logits[:, 0].tolist()))
    assert seen == [[3], [3, 5], [3, 5, 3, 5]]
    assert found.sizes == (1, 2, 4)
    assert all(0 < seconds < 10 for seconds in found.seconds)


def test_measurement_decides_without_a_limit() -> None:
    seen: list[int] = []
    found = prepare_batches(Device(), CLIPS, None, lambda outputs: seen.append(len(outputs.logits)))
    assert tuple(seen) == sizes_up_to(MAX_BATCH)
    assert found.sizes == sizes_up_to(MAX_BATCH)[: len(found.sizes)]


def test_wrong_outputs_of_any_size_refuse_the_package() -> None:
    def check(outputs: Outputs) -> None:
        if len(outputs.logits) == 4:
            raise PackageError("its answer is not the reference's")

    with pytest.raises(PackageError, match="not the reference's"):
        prepare_batches(Device(), CLIPS, None, check)


def test_size_that_does_not_fit_is_skipped_unless_it_was_requested() -> None:
    found = prepare_batches(Device(memory_rows=4), CLIPS, None, lambda _: None)
    assert found.sizes[-1] <= 4
    with pytest.raises(InferenceFailed, match="out of memory"):
        prepare_batches(Device(memory_rows=4), CLIPS, 8, lambda _: None)
    with pytest.raises(InferenceFailed, match="out of memory"):
        prepare_batches(Device(memory_rows=0), CLIPS, None, lambda _: None)


def test_preparation_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.batch_sizes.PREPARING_S", 0.0)
    assert prepare_batches(Device(), CLIPS, None, lambda _: None).sizes == (1,)
    assert prepare_batches(Device(), CLIPS, 4, lambda _: None).sizes == (1, 2, 4)


def test_clips_are_repeated_in_order() -> None:
    assert repeated(CLIPS, 5)["frames"][:, 0].tolist() == [3, 5, 3, 5, 3]

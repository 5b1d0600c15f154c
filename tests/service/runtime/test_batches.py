"""Which batches a device is prepared for."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import PackageError
from service.runtime.batches import MOST, Batches, prepare_batches, repeated, sizes_up_to
from service.runtime.session import InferenceFailed, Inputs, Outputs, Runtime, Tensor
from tests.engines import CPU

CLIPS = {"frames": np.array([[3], [5]], np.uint8)}


class Device:
    """Answers with the first number of every row, in batches up to what it has memory for."""

    runtime: Runtime = CPU
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
        raise AssertionError("those who prepare it do not own it")


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_sizes_double_up_to_the_largest(most: int, sizes: tuple[int, ...]) -> None:
    assert sizes_up_to(most) == sizes


def test_batches_grow_while_that_carries_notably_more() -> None:
    batches = Batches(sizes=(1, 2, 4, 8), seconds=(0.003, 0.004, 0.0068, 0.0134))
    assert batches.rates == pytest.approx((333, 500, 588, 597), rel=0.01)
    assert batches.worth_while() == Batches((1, 2, 4), (0.003, 0.004, 0.0068))


def test_a_device_that_gains_nothing_by_batches_runs_single_clips() -> None:
    assert Batches(sizes=(1, 2), seconds=(0.1, 0.2)).worth_while().sizes == (1,)


def test_every_size_is_run_and_its_answer_looked_at() -> None:
    seen: list[list[float]] = []
    found = prepare_batches(Device(), CLIPS, 4, lambda outputs: seen.append(outputs.logits[:, 0].tolist()))
    assert seen == [[3], [3, 5], [3, 5, 3, 5]]
    assert found.sizes == (1, 2, 4)
    assert all(0 < seconds < 10 for seconds in found.seconds)


def test_without_a_limit_the_measurement_decides() -> None:
    seen: list[int] = []
    found = prepare_batches(Device(), CLIPS, None, lambda outputs: seen.append(len(outputs.logits)))
    assert tuple(seen) == sizes_up_to(MOST)
    assert found.sizes == sizes_up_to(MOST)[: len(found.sizes)]


def test_a_size_that_is_answered_wrongly_refuses_the_package() -> None:
    def check(outputs: Outputs) -> None:
        if len(outputs.logits) == 4:
            raise PackageError("its answer is not the reference's")

    with pytest.raises(PackageError, match="not the reference's"):
        prepare_batches(Device(), CLIPS, None, check)


def test_what_does_not_fit_is_left_out_unless_it_was_asked_for() -> None:
    found = prepare_batches(Device(memory_rows=4), CLIPS, None, lambda _: None)
    assert found.sizes[-1] <= 4
    with pytest.raises(InferenceFailed, match="out of memory"):
        prepare_batches(Device(memory_rows=4), CLIPS, 8, lambda _: None)
    with pytest.raises(InferenceFailed, match="out of memory"):
        prepare_batches(Device(memory_rows=0), CLIPS, None, lambda _: None)


def test_preparing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.batches.PREPARING_S", 0.0)
    assert prepare_batches(Device(), CLIPS, None, lambda _: None).sizes == (1,)
    assert prepare_batches(Device(), CLIPS, 4, lambda _: None).sizes == (1, 2, 4)


def test_clips_are_repeated_in_order() -> None:
    assert repeated(CLIPS, 5)["frames"][:, 0].tolist() == [3, 5, 3, 5, 3]

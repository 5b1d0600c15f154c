"""Interleaved measurement of real processes: rounds, clips, memory, and workloads that fail."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from service.bench.measurement import Plan, Step, WorkloadResult, measure_groups
from service.subprocesses.workload import Workload
from tests.service.subprocesses.workloads import clips, workload

BRIEFLY = Plan(rounds=2, repeat_s=0.0)


def measured(*workloads: Workload, plan: Plan = BRIEFLY, batch: int = 1) -> list[WorkloadResult]:
    [results] = measure_groups([workloads], clips(batch), plan, lambda step: None, sample=clips(3))
    return results


def test_workloads_alternate_and_another_one_begins_each_round(tmp_path: Path) -> None:
    log = tmp_path / "log"
    measured(
        *(workload("logging", name, (1, 2), log=log, word=name) for name in "ab"),
        plan=Plan(rounds=2, repeat_s=0.0),
        batch=2,
    )
    lines = log.read_text().splitlines()
    # Loading and the first run, batch 2, the sample.
    assert lines[:8] == ["a 1", "a 1", "a 2", "a 3", "b 1", "b 1", "b 2", "b 3"]
    repeats = [line for line, _ in groupby(lines[8:])]  # each with its untimed run
    assert repeats == ["a 1", "a 2", "b 1", "b 2", "b 1", "b 2", "a 1", "a 2"]


def test_repeat_is_as_long_as_planned_and_short_runs_are_warmed_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    [result] = measured(workload("logging", log=log, word="a"), plan=Plan(rounds=1, repeat_s=0.05))
    runs_s = result.runs_s[1]
    assert len(runs_s) > 1 or runs_s[0] >= 0.05  # it continues until its time is over
    assert sum(runs_s[:-1]) < 0.05  # and then no other run begins
    untimed = 4  # loading, the first run, the sample, the warm-up
    assert len(log.read_text().splitlines()) == len(runs_s) + untimed


def test_each_batch_gets_the_first_clips_in_order() -> None:
    [result] = measured(workload("doubling", batches=(1, 2)), batch=2)
    assert sorted(result.runs_s) == [1, 2]
    assert all(len(runs_s) == BRIEFLY.rounds for runs_s in result.runs_s.values())
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs["logits"], [[0], [2], [4]])


def test_every_load_uses_a_new_process() -> None:
    [result] = measured(workload("doubling"), plan=Plan(rounds=1, repeat_s=0.0, loads=3))
    assert len(result.load_s) == 3
    assert min(result.load_s) > 0


def test_peak_memory_grows_with_the_batch_and_is_measured_per_workload() -> None:
    growing, still = measured(
        workload("growing", batches=(1, 4), megabytes=50), workload("doubling"), batch=4
    )
    more = growing.peak_bytes[4] - growing.peak_bytes[1]
    assert 140e6 < more < 200e6
    assert still.peak_bytes[1] < growing.peak_bytes[1]


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("unavailable", "no such engine here"),
        ("broken", "ValueError: the graph is upside down"),
        ("leaving", "its process ended with status 3"),
        (
            "missing",
            "AttributeError: module 'tests.service.subprocesses.workloads' has no attribute 'missing'",
        ),
    ],
)
def test_workload_that_cannot_load_reports_why_and_the_others_continue(factory: str, reason: str) -> None:
    failed, good = measured(workload(factory), workload("doubling"))
    assert failed.failure == reason
    assert failed.runs_s == {}
    assert good.failure is None
    assert len(good.runs_s[1]) == BRIEFLY.rounds


def test_workload_that_dies_keeps_its_measurements() -> None:
    [result] = measured(workload("dying", batches=(1, 2), at_batch=2), batch=2)
    assert result.failure == "its process was ended by SIGKILL"
    assert sorted(result.peak_bytes) == [1]


def test_total_of_steps_shrinks_when_a_workload_fails() -> None:
    steps: list[Step] = []
    groups = [[workload("doubling", "a")], [workload("unavailable"), workload("doubling", "b", (1, 2))]]
    measure_groups(groups, clips(2), BRIEFLY, steps.append)
    assert [step.done for step in steps] == list(range(len(steps)))
    assert (steps[0].description, steps[0].total) == ("a, 1 thread: loading", 4 + 4 + 7)
    assert (steps[-1].description, steps[-1].total) == ("b, 1 thread: round 2 of 2, batch 2", len(steps))


def test_thread_count_is_set_in_the_environment_of_the_process() -> None:
    base = workload("threads_asked_for")
    three = Workload("three", base.factory, {}, threads=3)
    [result] = measured(three)
    assert result.outputs is not None
    assert result.outputs["logits"].tolist() == [3]

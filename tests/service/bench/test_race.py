"""The race on real processes: turns, clips, memory, and contenders that fail."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from service.bench.race import Plan, Result, Step, race
from service.contenders.contender import Contender
from tests.service.contenders.workloads import clips, contender

BRIEFLY = Plan(rounds=2, turn_s=0.0)


def raced(*contenders: Contender, plan: Plan = BRIEFLY, batch: int = 1) -> list[Result]:
    [results] = race([contenders], clips(batch), plan, lambda step: None, question=clips(3))
    return results


def test_contenders_take_turns_and_another_one_begins_each_round(tmp_path: Path) -> None:
    log = tmp_path / "log"
    raced(
        *(contender("logging", name, (1, 2), log=log, word=name) for name in "ab"),
        plan=Plan(rounds=2, turn_s=0.0),
        batch=2,
    )
    lines = log.read_text().splitlines()
    # Loading and the first run, batch 2, the question.
    assert lines[:8] == ["a 1", "a 1", "a 2", "a 3", "b 1", "b 1", "b 2", "b 3"]
    turns = [line for line, _ in groupby(lines[8:])]  # each with its untimed run
    assert turns == ["a 1", "a 2", "b 1", "b 2", "b 1", "b 2", "a 1", "a 2"]


def test_turn_is_as_long_as_planned_and_short_runs_are_warmed_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    [result] = raced(contender("logging", log=log, word="a"), plan=Plan(rounds=1, turn_s=0.05))
    runs_s = result.runs_s[1]
    assert len(runs_s) > 1 or runs_s[0] >= 0.05  # it goes on until its time is over
    assert sum(runs_s[:-1]) < 0.05  # and no run begins behind that
    untimed = 4  # loading, the first run, the question, the one that warms up
    assert len(log.read_text().splitlines()) == len(runs_s) + untimed


def test_each_batch_has_its_own_clips_in_order() -> None:
    [result] = raced(contender("doubling", batches=(1, 2)), batch=2)
    assert sorted(result.runs_s) == [1, 2]
    assert all(len(runs_s) == BRIEFLY.rounds for runs_s in result.runs_s.values())
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs["logits"], [[0], [2], [4]])


def test_every_load_is_a_fresh_process() -> None:
    [result] = raced(contender("doubling"), plan=Plan(rounds=1, turn_s=0.0, loads=3))
    assert len(result.load_s) == 3
    assert min(result.load_s) > 0


def test_memory_grows_with_the_batch_and_is_that_of_the_contender() -> None:
    growing, still = raced(contender("growing", batches=(1, 4), megabytes=50), contender("doubling"), batch=4)
    more = growing.peak_bytes[4] - growing.peak_bytes[1]
    assert 140e6 < more < 200e6
    assert still.peak_bytes[1] < growing.peak_bytes[1]


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("unavailable", "no such engine here"),
        ("broken", "ValueError: the graph is upside down"),
        ("leaving", "its process ended with status 3"),
        ("missing", "AttributeError: module 'tests.service.contenders.workloads' has no attribute 'missing'"),
    ],
)
def test_one_that_cannot_load_says_why_and_the_others_go_on(factory: str, reason: str) -> None:
    failed, good = raced(contender(factory), contender("doubling"))
    assert failed.failure == reason
    assert failed.runs_s == {}
    assert good.failure is None
    assert len(good.runs_s[1]) == BRIEFLY.rounds


def test_one_that_dies_keeps_what_it_had_done() -> None:
    [result] = raced(contender("dying", batches=(1, 2), at_batch=2), batch=2)
    assert result.failure == "its process was ended by SIGKILL"
    assert sorted(result.peak_bytes) == [1]


def test_steps_are_counted_to_the_end_whoever_drops_out() -> None:
    steps: list[Step] = []
    heats = [[contender("doubling", "a")], [contender("unavailable"), contender("doubling", "b", (1, 2))]]
    race(heats, clips(2), BRIEFLY, steps.append)
    assert [step.done for step in steps] == list(range(len(steps)))
    assert (steps[0].what, steps[0].total) == ("a, 1 thread: loading", 4 + 4 + 7)
    assert (steps[-1].what, steps[-1].total) == ("b, 1 thread: round 2 of 2, batch 2", len(steps))


def test_libraries_are_told_how_many_threads() -> None:
    base = contender("threads_asked_for")
    three = Contender("three", base.factory, {}, threads=3)
    [result] = raced(three)
    assert result.outputs is not None
    assert result.outputs["logits"].tolist() == [3]

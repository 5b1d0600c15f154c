"""The race against other servers: its figures, its goals, and real servers under its load."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.common import processes
from benchmarks.common.report import machine, placed
from benchmarks.common.verdict import Verdict
from benchmarks.serving_race import command as serving_race
from benchmarks.serving_race import figures, goals, measure, servers
from benchmarks.serving_race import report as race_report
from benchmarks.serving_race.load import Answer
from benchmarks.serving_race.peers.job import Decoder, Network
from benchmarks.serving_race.servers import LIMITED
from tests.support.tiny_models import colour_clip

# Two clips with the same best label, as from a network with made-up weights.
EXPECTED = [{7: math.log(0.6), 8: math.log(0.4)}, {7: math.log(0.9), 8: math.log(0.1)}]
NOBODY = 2**22 + 1  # above all process ids
FIRST, SECOND = ((7, 0.61), (8, 0.39)), ((7, 0.88), (8, 0.12))


def answer(began: float, took_s: float, **more: Any) -> Answer:
    fields: dict[str, Any] = {"clip": 0, "outcome": "answered", "best": FIRST}
    return Answer(began=began, took_s=took_s, **(fields | more))


def phase(answers: list[Answer], **more: Any) -> dict[str, Any]:
    plain = [vars(item) for item in answers]
    return {
        "began": 10.0,
        "ended": 20.0,
        "answers": plain,
        "cpu_share": 0.1,
        "foreign_cores": 0.0,
        "after": [],
    } | more


def test_arrivals_are_a_poisson_process() -> None:
    times = figures.arrivals(rate=50.0, seconds=200.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 200
    assert len(times) / 200 == pytest.approx(50, rel=0.05)
    # Exponential gaps: a share of 1/e is longer than the mean.
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(1 / math.e, abs=0.02)


def test_arrivals_are_the_same_ones_at_every_rate() -> None:
    slow, fast = figures.arrivals(rate=2.0, seconds=10.0), figures.arrivals(rate=4.0, seconds=5.0)
    assert [time / 2 for time in slow] == pytest.approx(fast)


def test_percentile_lies_between_neighbours() -> None:
    assert figures.percentile([4, 1, 3, 2], 0.5) == 2.5
    assert figures.percentile(range(101), 0.99) == 99
    assert figures.percentile([], 0.5) is None


def test_rate_counts_the_part_of_an_answer_that_lies_within() -> None:
    answers = [answer(9, 2), answer(12, 1), answer(19, 4), answer(21, 1)]
    assert figures.rate(answers, 10, 20) == pytest.approx((0.5 + 1 + 0.25) / 10)


@pytest.mark.parametrize(
    ("clip", "best", "right"),
    [
        (0, FIRST, True),
        (1, SECOND, True),
        (1, FIRST, False),  # another clip's answer, with the same best label
        (0, ((8, 0.61), (7, 0.39)), False),
        (0, ((7, 0.61), (9, 0.39)), False),  # an unexpected label
    ],
)
def test_right_is_the_answer_of_its_own_clip(clip: int, best: Any, right: bool) -> None:
    assert figures.is_right(answer(0, 1, clip=clip, best=best), EXPECTED) is right


def test_closed_loop_leaves_out_what_began_while_warming_up() -> None:
    answers = [
        answer(5, 1),
        answer(11, 0.3, work_ms=280.0),
        answer(12, 0.1, work_ms=90.0),
        answer(13, 9.0, outcome="refused", best=()),
        answer(14, 9.0, clip=1),
    ]
    found = figures.closed_loop(phase(answers), EXPECTED)
    assert found["right"] == 2
    assert found["rate"] == pytest.approx(0.2)
    assert found["p50_ms"] == pytest.approx(200)
    assert found["added_ms"] == pytest.approx(15)
    assert found["outcomes"] == {"answered": 3, "refused": 1}
    assert (found["clips_right"], found["clips"]) == (1, 2)


def test_goodput_counts_right_answers_in_time() -> None:
    answers = [
        answer(10, 1.9),
        answer(10, 2.1),
        answer(10, 0.5),  # while it warms up
        answer(19, 1.5),
        answer(11, 0.1, best=SECOND),
        answer(11, 0.02, outcome="refused", best=()),
        answer(12, 10, outcome="timed out", best=()),
        answer(12, 1, outcome="cut", best=()),
    ]
    after = [vars(answer(20.0, 0.5)), vars(answer(20.5, 0.11)), vars(answer(20.7, 0.1))]
    found = figures.open_loop(phase(answers, after=after), 1.0, EXPECTED, alone_s=0.1)
    assert found["goodput"] == pytest.approx(1 / 9)  # neither too late, nor another clip's, nor after the end
    assert found["offered"] == pytest.approx(0.8)
    assert found["outcomes"] == {"answered": 5, "refused": 1, "timed out": 1, "cut": 1}
    assert found["refused_p99_ms"] == pytest.approx(20)
    assert found["normal_after_s"] == pytest.approx(0.5)


def test_latency_that_never_recovers_is_none() -> None:
    late = answer(20.5, 0.1, outcome="refused", best=())
    assert figures.normal_after(20.0, [answer(20.0, 0.5), late], alone_s=0.1) is None


@pytest.mark.parametrize(
    ("rounds", "at_most", "holds"),
    [
        ((1.0, 1.2, 1.3), False, True),
        ((1.0, 1.0, 1.3), False, False),
        ((0.9, 2.0, 1.1), True, True),
        ((), True, None),
    ],
)
def test_goal_is_judged_by_the_median(rounds: tuple[float, ...], at_most: bool, holds: bool | None) -> None:
    assert Verdict.of_rounds("a figure", rounds, limit=1.1, at_most=at_most).holds is holds


def loop(rate: float, p50_ms: float) -> dict[str, Any]:
    return {
        "rate": rate,
        "p50_ms": p50_ms,
        "p99_ms": 2 * p50_ms,
        "right": 9,
        "outcomes": {"answered": 10},
        "clips_right": 6,
        "clips": 6,
        "generator_cores": 0.02,
        "foreign_cores": 0.01,
        "work_ms": 100.0,
        "added_ms": 5.0,
    }


def flood(goodput: float, **outcomes: int) -> dict[str, Any]:
    memory = {"pss_before": 100e6, "pss_peak": 200e6, "pss_after": 110e6}
    return memory | {
        "offered": 16.0,
        "goodput": goodput,
        "carried": 12.0,
        "right": 9,
        "outcomes": outcomes,
        "p50_ms": 300.0,
        "p99_ms": 900.0,
        "refused_p99_ms": 20.0,
        "alone_ms": 150.0,
        "normal_after_s": None,
        "generator_cores": 0.05,
        "foreign_cores": 0.0,
    }


def document() -> dict[str, Any]:
    """Ours is 1.5 times as fast as a peer in one round, and twice as fast in the other two."""
    names = {"ours": True, "slow": False, "quick": False, "wrong": False, f"quick{LIMITED}": False}
    mine, theirs = [loop(9, 100), loop(12, 80), loop(12, 80)], [loop(6, 160)] * 3
    closed = {
        "ours": mine,
        "slow": [loop(5, 200)] * 3,
        "quick": theirs,
        "wrong": [loop(50, 1) | {"right": 0}] * 3,
    }
    idle = {"ready_s": 1.0, "first_answer_s": 1.2, "pss_ready": 200e6, "pss_answered": 230e6}
    return {
        "machine": machine(),
        "versions": {"fastapi": "1"},
        "package": {"architecture": "net", "precision": "int8"},
        "rounds": 3,
        "seconds": 6,
        "overload_rounds": 1,
        "overload_seconds": 30,
        "overload_rate": None,
        "queue_limit": 6,
        "servers": {name: {"ours": ours, "limited": LIMITED in name} for name, ours in names.items()},
        "absent": {"gone": "it did not start"},
        "repeated": 2,
        "closed": dict.fromkeys(goals.SCENARIOS, closed),
        "floors": dict.fromkeys(goals.SCENARIOS, [{"rate": 8.0, "p50_ms": 120.0}] * 3),
        "overload": {
            "ours": [flood(11.0, refused=5)],
            f"quick{LIMITED}": [flood(5.5, cut=1)],
            "quick": [flood(9.0)],
        },
        "idle": {"ours": [idle]},
    }


def test_goals_are_ratios_within_a_round_to_the_best_peer_that_is_right() -> None:
    found = {goal.what: goal for goal in goals.goals(document(), "ours")}
    speed = found["short clips, 4 callers: clips/s over the best peer's (quick)"]
    assert speed.rounds == (1.5, 2.0, 2.0)
    assert speed.holds
    assert found["short clips, 1 caller: p50 over the best peer's (quick)"].rounds == (0.625, 0.5, 0.5)
    overload = found[f"overload: goodput over the best limited peer's (quick{LIMITED})"]
    assert overload.rounds == (2.0,)
    assert found["overload: goodput over the rate just before and after"].value == pytest.approx(11 / 12)
    assert found["overload: goodput over the rate just before and after"].holds is False
    assert found["overload: normal latency again, s after its end"].holds is False


def test_report_is_complete_and_fits_its_page() -> None:
    text = serving_race.finish(document())
    assert "| quick | 6.00 (6.00 to 6.00) | 160 (160 to 160) | 320 (320 to 320) | 6 of 6 | 3 |" in text
    assert "| ours | 16.0 | 11.00 | 12.00 | 900 | 5, 20 | 0 | 0 | 100 / 200 / 110 | - |" in text
    assert "Not measured: gone (it did not start)." in text
    assert "at least 1.1 | holds |" in text
    page = serving_race.PAGE.read_text(encoding="utf-8")
    assert text in placed(page, text, serving_race.START, serving_race.END)


def test_goals_without_measurements_are_undecided() -> None:
    empty = document() | {"closed": {}, "floors": {}, "overload": {}, "idle": {}}
    assert {goal.holds for goal in goals.goals(empty, "ours")} == {None}
    assert "not measured" in race_report.markdown(empty)


def test_round_without_a_correct_answer_is_shown_but_not_counted() -> None:
    nothing = figures.closed_loop(phase([answer(11, 0.3, best=SECOND)]), EXPECTED)
    found = document()
    found["closed"] = {name: {"ours": [nothing], "quick": [loop(6, 160)]} for name in goals.SCENARIOS}
    assert "| ours | 0.00 | - | - | 0 of 2 | 1 |" in serving_race.finish(found)
    assert {goal["holds"] for goal in found["goals"]["ours"][:2]} == {None}


def test_disturbed_measurement_is_repeated_and_the_quieter_one_counts(setup: measure.Setup) -> None:
    found = document()
    race = serving_race.Race(setup, [], serving_race.QUICK, found, watch=lambda step: None)
    measured = iter([{"foreign_cores": 0.3}, {"foreign_cores": 0.2}, {"foreign_cores": 0.0}])
    assert race.undisturbed(lambda: next(measured)) == {"foreign_cores": 0.2}
    assert race.undisturbed(lambda: next(measured)) == {"foreign_cores": 0.0}
    assert found["repeated"] == 3


def test_servers_are_chosen_by_name_with_their_limit() -> None:
    everybody = [*servers.ours(), *servers.peers(6)]
    assert [server.name for server in serving_race.choose(everybody, ["ours", "mosec"])] == [
        "ours",
        "mosec",
        f"mosec{LIMITED}",
    ]
    with pytest.raises(typer.BadParameter, match=r"there is no nonesuch; there are: ours"):
        serving_race.choose(everybody, ["nonesuch"])


def test_memory_is_that_of_a_process_and_its_children() -> None:
    assert os.getpid() in processes.tree(os.getppid())
    assert processes.pss_bytes(os.getppid()) > processes.pss_bytes(os.getpid()) > 10_000_000


def test_processor_time_of_other_processes_is_not_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            as_server, as_other = processes.UnrelatedLoad(busy.pid), processes.UnrelatedLoad(NOBODY)
            while processes.cpu_s(busy.pid) < 0.3:
                time.sleep(0.05)
            assert as_other.cores() > as_server.cores()
        finally:
            busy.kill()


@pytest.fixture(scope="module")
def setup(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> measure.Setup:
    folder = tmp_path_factory.mktemp("race")
    clips = [folder / "red.mp4", folder / "blue.mp4"]
    clips[0].write_bytes(colour_clip((230, 20, 20)))
    clips[1].write_bytes(colour_clip((20, 20, 230)))
    package = tiny_models / "tiny" / "1"
    decode, network = Decoder(package), Network(package)
    answers = [network(decode(clip.read_bytes()))["predictions"] for clip in clips]
    expected = [{label["index"]: math.log(label["score"]) for label in labels} for labels in answers]
    return measure.Setup(package, {"short": clips}, {"short": expected}, Path(sys.executable), folder)


def server(name: str) -> servers.Server:
    return next(found for found in [*servers.ours(), *servers.peers(2)] if found.name == name)


def test_peer_and_ours_answer_the_same_under_load(setup: measure.Setup) -> None:
    for name in ("ours, onnxruntime", "FastAPI"):
        found = measure.closed(setup, server(name), "short", callers=2, warm_up_s=0.0, seconds=0.3)
        assert found["clips_right"] == found["clips"] == 2, name
        assert set(found["outcomes"]) == {"answered"}, name
        assert found["rate"] > 0, name
        assert ("added_ms" in found) == name.startswith("ours")


def test_overload_is_measured_and_leaves_nothing_behind(
    setup: measure.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALONE_POSTS_S", "LONE_S", "SETTLED_S"):
        monkeypatch.setattr(measure, name, 0.3)
    monkeypatch.setattr(measure, "CARRIED_S", 0.3)
    limited = server(f"FastAPI{LIMITED}")
    before = processes.tree(os.getpid())  # other tests may have started helpers that still run
    found = measure.overload(setup, limited, "short", rate=60.0, warm_up_s=0.1, seconds=0.5)
    assert found["outcomes"]["refused"] > 0  # its limit is one: requests that arrive meanwhile
    assert found["carried"] is None
    assert found["pss_peak"] >= found["pss_before"] > 10_000_000
    assert processes.tree(os.getpid()) == before


def test_throughput_of_ours_is_measured_beside_its_overload(
    setup: measure.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALONE_POSTS_S", "LONE_S", "SETTLED_S", "CARRIED_S"):
        monkeypatch.setattr(measure, name, 0.3)
    ours = server("ours, onnxruntime")
    found = measure.overload(setup, ours, "short", rate=5.0, warm_up_s=0.1, seconds=0.5)
    assert found["carried"] > 5


def test_floor_is_the_job_without_a_server(setup: measure.Setup) -> None:
    before = processes.tree(os.getpid())
    found = measure.bare(setup, "short", processes=2, threads=1, seconds=0.2)
    assert min(found["rate"], found["p50_ms"]) > 0
    assert processes.tree(os.getpid()) == before


def test_rates_of_loops_combined_add_up() -> None:
    assert measure.combined([[0.1, 0.1, 0.1], [0.2]]) == {
        "rate": pytest.approx(15),
        "p50_ms": pytest.approx(100),
    }


def test_peer_that_cannot_start_says_why(setup: measure.Setup) -> None:
    broken = replace(server("FastAPI"), arguments=lambda port: ["-c", "raise SystemExit('no such thing')"])
    with pytest.raises(servers.PeerFailed, match="FastAPI did not start: no such thing"):
        measure.closed(setup, broken, "short", callers=1, warm_up_s=0.0, seconds=0.1)

"""The figures of the soak test, and the detection of each kind of fault."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.soak import watch
from benchmarks.soak.figures import slope
from benchmarks.soak.report import Rates, Soak, as_text, document_of, not_quiet
from benchmarks.soak.requests import DISCONNECT, VALID, Post
from benchmarks.soak.traffic import CUT, GONE, unexpected
from benchmarks.soak.watch import Held, Watch
from service.workers.sandbox import MAX_OPEN_FILES

POSTS = (
    Post(VALID, "200", 0.8, (b"",)),
    Post("garbage", "415 not_a_video", 0.1, (b"",)),
    Post(DISCONNECT, "", 0.1, (b"",)),
)
ANSWERS = Counter(
    {(VALID, "200"): 80, ("garbage", "415 not_a_video"): 9, (DISCONNECT, GONE): 8, (DISCONNECT, "200"): 1}
)
IDLE = Held(descriptors=20, processes=4, temporary_files=0)
FLAT = [200_000_000] * 300


def soaked(pss: list[int] = FLAT, **changes: Any) -> Soak:
    times = [2.0 * number for number in range(len(pss))]
    seen = Watch(1, times, pss, FLAT, kills=2, recovered_s=[0.02, 0.03], others_cores=[0.0, 0.1])
    rates = Rates(before=50.0, after=49.0, load=0.8)
    return replace(Soak(rates, ANSWERS, [0.02, 0.04], seen, IDLE, IDLE, {"killed": 2.0}), **changes)


def faults(soak: Soak) -> list[str]:
    found: list[str] = document_of(soak, POSTS)["faults"]
    return found


def test_slope_of_a_line_is_exact() -> None:
    times = np.arange(0, 600, 2.0)
    found = slope(times.tolist(), (100 + times / 60 * 3).tolist())
    assert found.per_minute == pytest.approx(3)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_slope_of_noise_is_within_its_error() -> None:
    times = np.arange(0, 600, 2.0)
    slopes = [
        slope(times.tolist(), np.random.default_rng(seed).normal(0, 10, 300).tolist()) for seed in range(200)
    ]
    within = sum(abs(found.per_minute) < 2 * found.error for found in slopes)
    assert 180 <= within <= 196  # 13 degrees of freedom: 93 %


def test_slope_of_correlated_samples_has_a_larger_error() -> None:
    times = np.arange(0, 600, 2.0)
    waves = 10 * np.sin(times / 20)
    alike, single = slope(times.tolist(), waves.tolist()), slope(times.tolist(), waves.tolist(), blocks=300)
    assert alike.lower_bound < 0
    assert alike.error > single.error


@pytest.mark.parametrize(("samples", "blocks"), [(10, 15), (10, 2)])
def test_slope_needs_enough_samples(samples: int, blocks: int) -> None:
    with pytest.raises(ValueError, match="at least three"):
        slope([0.0] * samples, [0.0] * samples, blocks)


def test_expected_answers_are_no_faults() -> None:
    assert not list(unexpected(ANSWERS, POSTS))
    assert not faults(soaked())


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        (VALID, "503 overloaded"),
        (VALID, CUT),
        (VALID, GONE),
        ("garbage", "200"),
        (DISCONNECT, "500 internal_error"),
    ],
)
def test_unexpected_answers_are_faults(name: str, outcome: str) -> None:
    (fault,) = unexpected(ANSWERS + Counter({(name, outcome): 3}), POSTS)
    assert fault.startswith(f"{name}: 3 times {outcome!r}")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"pss": [200_000_000 + 40_000 * number for number in range(300)]},
            "memory of all processes grows by 1.20",
        ),
        ({"after": replace(IDLE, descriptors=21)}, "resources at the end"),
        ({"after": replace(IDLE, temporary_files=1)}, "resources at the end"),
        ({"restarts": {"killed": 1.0}}, "2 workers were killed, but the service counted 1"),
        ({"seen": Watch(1, [2.0 * n for n in range(300)], FLAT, FLAT, 2, [0.02, 1.5])}, "1.50 s until"),
    ],
)
def test_faults_are_reported(changes: dict[str, Any], fault: str) -> None:
    (found,) = faults(soaked(**changes))
    assert found.startswith(fault)
    assert found in as_text(document_of(soaked(**changes), POSTS) | RUN)


RUN = {
    "minutes": 10.0,
    "machine": {"cores": 2, "cpu": "a", "python": "3.11", "av": "1", "numpy": "1", "onnxruntime": "1"},
}


def test_report_lists_every_kind_of_request_and_no_faults() -> None:
    text = as_text(document_of(soaked(), POSTS) | RUN)
    assert "| garbage | 415 not_a_video | 9 | 9 x 415 not_a_video |" in text
    assert "| hang-up | any | 9 | 1 x 200, 8 x disconnected |" in text
    assert text.endswith("No faults.\n")
    assert "at 80 % of the closed-loop rate, which was\n50.0 requests per second before" in text


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"rates": Rates(before=50.0, after=35.0, load=0.8)},
            "the load was 114 % of the capacity",
        ),
        (
            {"seen": Watch(1, [0.0, 2.0, 4.0], FLAT[:3], FLAT[:3], others_cores=[0.0, 1.3])},
            "up to 1.3 cores busy",
        ),
    ],
)
def test_report_states_that_the_machine_was_not_quiet(changes: dict[str, Any], why: str) -> None:
    assert why in str(not_quiet(soaked(**changes)))
    text = as_text(document_of(soaked(**changes), POSTS, ["refused"]) | RUN)
    assert why in text
    assert text.endswith("- refused\n")
    assert not_quiet(soaked()) is None


class Forker:
    """Replaces the process tree of a service: workers with their limits on open files."""

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.killed: list[int] = []

    def workers(self, _: int) -> list[int]:
        return sorted(self.limits)

    def kill(self, pid: int, _: int) -> None:
        del self.limits[pid]
        self.killed.append(pid)


@pytest.fixture
def forker(monkeypatch: pytest.MonkeyPatch) -> Forker:
    forker = Forker()
    monkeypatch.setattr(watch, "workers", forker.workers)
    monkeypatch.setattr(watch, "is_running", lambda _: False)
    monkeypatch.setattr(watch, "_most_open_files", forker.limits.get)
    monkeypatch.setattr("os.kill", forker.kill)
    return forker


def test_ending_worker_is_neither_killed_nor_counted(forker: Forker, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two workers, and a third one is ending when a kill is due."""
    steps: list[Callable[[], object]] = [
        lambda: forker.limits.pop(1),  # the surplus worker ends, so one can be killed
        lambda: forker.limits.update({4: MAX_OPEN_FILES * 64}),  # its successor is forked,
        lambda: forker.limits.update({4: MAX_OPEN_FILES}),  # and sandboxed
    ]
    monkeypatch.setattr("time.sleep", lambda _: steps.pop(0)())
    forker.limits.update(dict.fromkeys((1, 2, 3), MAX_OPEN_FILES))
    seen = Watch(1)
    assert seen._kill_one(2, random.Random(1)) < watch.RECOVERY_LIMIT_S
    assert len(forker.killed) == seen.kills == 1
    assert forker.killed[0] in (2, 3)
    assert not steps

"""The simulation of replicas agrees with queueing theory and with itself, and the commands run."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.scaling.command import app, capacity_per_s
from benchmarks.scaling.simulation import Autoscaler, ReplicaSettings, Simulation, StageCosts, poisson

NO_LIMIT = ReplicaSettings(1, 1, queue_limit=10**6, latency_target_s=1e9)


def test_waiting_time_is_that_of_the_theory() -> None:
    """M/D/1: the mean waiting time is rho / (2 (1 - rho)) service times."""
    times = StageCosts(0.0, 0.0, inference_s=0.1)
    outcome = Simulation(times, NO_LIMIT, replicas=1, cores=1).run(poisson([7.0], 2000.0), 2000.0)
    assert statistics.mean(outcome.latencies_s) - 0.1 == pytest.approx(0.7 / (2 * 0.3) * 0.1, rel=0.1)


def test_replicas_of_one_machine_share_its_cores() -> None:
    times, settings = StageCosts(0.0, 0.05, 0.05), ReplicaSettings(1, 1)
    arrivals = list(poisson([60.0], 30.0))
    for replicas, shared, rate in ((1, True, 20), (4, True, 20), (4, False, 60)):
        outcome = Simulation(times, settings, replicas=replicas, cores=2, shared=shared).run(arrivals, 30.0)
        assert outcome.rate == pytest.approx(rate, rel=0.1)
        assert outcome.refused + len(outcome.latencies_s) == len(arrivals)


def test_admission_bounds_the_latency_of_an_overload() -> None:
    times, settings = StageCosts(0.0, 0.01, 0.05), ReplicaSettings(2, 2, latency_target_s=0.5)
    outcome = Simulation(times, settings, replicas=1, cores=2).run(poisson([200.0], 20.0), 20.0)
    assert outcome.refused_share > 0.5
    assert outcome.latency_s(0.99) < 1.0


def test_autoscaler_follows_the_load_up_and_down() -> None:
    times = StageCosts(0.001, 0.01, 0.05)
    rule = Autoscaler(target=1.0, start_s=5.0)
    simulation = Simulation(times, ReplicaSettings(2, 2), replicas=1, cores=2, autoscaler=rule)
    outcome = simulation.run(poisson([5.0, 100.0, 100.0, *[1.0] * 8], 60.0), 660.0)
    most = max(count for _, count in outcome.replicas)
    assert 3 <= most <= 12  # 100 clips/s keep 6 cores busy
    assert outcome.replicas[-1][1] == 1
    assert outcome.replicas[1][0] > 60.0


def test_capacity_is_that_of_the_narrowest_stage() -> None:
    times = StageCosts(0.01, 0.02, 0.1)
    assert capacity_per_s(times, ReplicaSettings(2, 1), 1, 8) == pytest.approx(10)
    assert capacity_per_s(times, ReplicaSettings(8, 8), 4, 2) == pytest.approx(2 / 0.13)


def test_plan_needs_measured_figures_and_a_load(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["plan", "--rate", "10", "--results", str(tmp_path)])
    assert missing.exit_code != 0
    assert "benchmarks.scaling measure" in str(missing.exception)
    neither = CliRunner().invoke(app, ["plan"])
    assert neither.exit_code == 2
    (tmp_path / "scaling.json").write_text(
        '{"facts": {"times": {"http_s": 0.003, "decode_s": 0.02, "inference_s": 0.02, "spread": 0.1},'
        ' "start_s": 1.5, "pss_bytes": 200000000, "clip_bytes": 100000}}'
    )
    found = CliRunner().invoke(app, ["plan", "--rate", "20", "--cores", "2", "--results", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "replicas       1 of 2 cores" in found.output
    assert "0.9 cores busy" in found.output

"""Interleaved measurement: all workloads of a group are loaded, then run alternately in each round.

A slow moment of the machine then affects all workloads alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from service.errors import BlvnetError
from service.subprocesses.process import WorkloadProcess
from service.subprocesses.workload import Arrays, Repeat, Workload

# In longer runs the cost of waking a process is negligible. Before shorter ones, one run is not timed.
LONG_RUN_S = 0.5


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        rounds: Repeats of a workload with each batch size.
        repeat_s: Minimum duration of a repeat, without its untimed run.
        loads: Number of times a workload is loaded, each time in a new process.
    """

    rounds: int = 5
    repeat_s: float = 0.5
    loads: int = 1

    def steps(self, workload: Workload) -> int:
        """Number of progress steps of one workload."""
        return self.loads + (1 + self.rounds) * len(workload.batches)

    def to_json(self) -> dict[str, float]:
        """Return the plan for reports."""
        return {"rounds": self.rounds, "turn_s": self.repeat_s, "loads": self.loads}


@dataclass
class WorkloadResult:
    """Measurements of a workload.

    Attributes:
        workload: The workload.
        load_s: Seconds until the first output, for each load.
        runs_s: Batch size -> seconds of each timed run.
        peak_bytes: Batch size -> peak memory of the process after batches up to that size.
        outputs: Outputs for the sample that all workloads compute.
        failure: Why the workload failed, in one line; None if it did not fail.
    """

    workload: Workload
    load_s: list[float] = field(default_factory=list)
    runs_s: dict[int, list[float]] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)
    outputs: Arrays | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Step:
    """The step that begins, and the number of steps done and in total."""

    description: str
    done: int
    total: int


OnStep = Callable[[Step], None]


def measure_groups(
    groups: Sequence[Sequence[Workload]],
    clips: Arrays,
    plan: Plan,
    on_step: OnStep,
    sample: Arrays | None = None,
) -> list[list[WorkloadResult]]:
    """Measure groups of workloads sequentially. A workload that fails is no longer run.

    Args:
        groups: Workloads to compare. Names are unique within a group.
        clips: Inputs, as many clips as the largest batch.
        plan: How long to measure.
        on_step: Called at the beginning of each step.
        sample: Inputs that each workload computes once, in one batch, to compare their outputs.
    """
    progress = _Progress(on_step, sum(plan.steps(workload) for group in groups for workload in group))
    results = []
    for group in groups:
        with ExitStack() as stack:
            runners = [stack.enter_context(_Runner(workload, plan, progress)) for workload in group]
            for runner in runners:
                runner.load(clips, sample)
            for number in range(plan.rounds):
                # Each round begins with a different workload.
                for index in range(len(runners)):
                    runners[(index + number) % len(runners)].run_round(number)
            results.append([runner.result for runner in runners])
    return results


class _Progress:
    """Counts steps. `total` decreases when a workload fails."""

    def __init__(self, on_step: OnStep, total: int) -> None:
        self._on_step = on_step
        self._done = 0
        self.total = total

    def begin(self, description: str) -> None:
        self._on_step(Step(description, self._done, self.total))
        self._done += 1


class _Runner:
    """A workload and its process, which exists until the workload fails or the group is finished."""

    def __init__(self, workload: Workload, plan: Plan, progress: _Progress) -> None:
        self.result = WorkloadResult(workload)
        self._workload = workload
        self._plan = plan
        self._progress = progress
        self._steps_left = plan.steps(workload)
        self._process: WorkloadProcess | None = None
        self._expected_s: dict[int, float] = {}

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def load(self, clips: Arrays, sample: Arrays | None) -> None:
        """Load, run each batch size once, in ascending order to see its memory, and compute the sample."""
        with self._recording_failure():
            for _ in range(self._plan.loads):
                self._begin("loading")
                self._close()
                self._process = process = WorkloadProcess(self._workload)
                self.result.load_s.append(process.load(clips).load_s)
            for batch in self._workload.batches:
                self._begin(f"first run, batch {batch}")
                timed = process.repeat(Repeat(batch, duration_s=0.0, untimed=0))
                self._expected_s[batch] = timed.runs_s[0]
                self.result.runs_s[batch] = []
                self.result.peak_bytes[batch] = timed.peak_bytes
            if sample is not None:
                self.result.outputs = process.compute(sample)

    def run_round(self, number: int) -> None:
        """Run a repeat with each batch size, unless the workload has failed."""
        if self._process is None:
            return
        with self._recording_failure():
            for batch in self._workload.batches:
                self._begin(f"round {number + 1} of {self._plan.rounds}, batch {batch}")
                untimed = 1 if self._expected_s[batch] < LONG_RUN_S else 0
                timed = self._process.repeat(Repeat(batch, self._plan.repeat_s, untimed))
                self._expected_s[batch] = min(timed.runs_s)
                self.result.runs_s[batch] += timed.runs_s

    def _begin(self, description: str) -> None:
        self._progress.begin(f"{self._workload.title}: {description}")
        self._steps_left -= 1

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        try:
            yield
        except BlvnetError as exc:
            self.result.failure = exc.message
            self._progress.total -= self._steps_left
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

"""The race: all contenders load, then take turns, round after round, so that slow moments hit all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from service.contenders.contender import Arrays, Contender, Turn
from service.contenders.process import ContenderProcess
from service.errors import BlvnetError

# A run this long drowns what waking up costs; shorter ones are first run once for nothing.
SETTLED_S = 0.5


@dataclass(frozen=True)
class Plan:
    """How long to look.

    Attributes:
        rounds: how many turns a contender has with each batch size.
        turn_s: how long a turn is at least, without its untimed run.
        loads: how many times a contender is loaded, each time in a fresh process.
    """

    rounds: int = 5
    turn_s: float = 0.5
    loads: int = 1

    def steps(self, contender: Contender) -> int:
        """Loadings and turns of one contender."""
        return self.loads + (1 + self.rounds) * len(contender.batches)


@dataclass
class Result:
    """What came of a contender.

    Attributes:
        contender: who.
        load_s: seconds to the first answer, each time that it was loaded.
        runs_s: batch size -> seconds of each timed run.
        peak_bytes: batch size -> most memory of its process when batches up to this size had run.
        outputs: its answer to the question that all were asked.
        failure: why it dropped out, in one line.
    """

    contender: Contender
    load_s: list[float] = field(default_factory=list)
    runs_s: dict[int, list[float]] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)
    outputs: Arrays | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Step:
    """What begins now, and how much of everything is done."""

    what: str
    done: int
    total: int


Watch = Callable[[Step], None]


def race(
    heats: Sequence[Sequence[Contender]],
    clips: Arrays,
    plan: Plan,
    watch: Watch,
    question: Arrays | None = None,
) -> list[list[Result]]:
    """Measure contenders against each other, one heat after the other; one that fails drops out.

    Args:
        heats: who runs against whom; each contender of a heat has a name of its own.
        clips: inputs, as many clips as the largest batch has.
        plan: how long to look.
        watch: told at the beginning of each step.
        question: clips that each contender answers once, in one batch; the matrix product has no answer.
    """
    steps = _Steps(watch, sum(plan.steps(contender) for heat in heats for contender in heat))
    results = []
    for heat in heats:
        with ExitStack() as stack:
            runners = [stack.enter_context(_Runner(contender, plan, steps)) for contender in heat]
            for runner in runners:
                runner.enter(clips, question)
            for number in range(plan.rounds):
                for runner in _rotated(runners, number):
                    runner.run_round(number)
            results.append([runner.result for runner in runners])
    return results


class _Steps:
    """Tells those who watch how far it is."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch = watch
        self._done, self._total = 0, total

    def begin(self, what: str) -> None:
        self._watch(Step(what, self._done, self._total))
        self._done += 1

    def leave_out(self, count: int) -> None:
        self._total -= count


class _Runner:
    """A contender in the race, and its process while it has one."""

    def __init__(self, contender: Contender, plan: Plan, steps: _Steps) -> None:
        self.result = Result(contender)
        self._contender = contender
        self._plan = plan
        self._steps = steps
        self._steps_left = plan.steps(contender)
        self._process: ContenderProcess | None = None
        self._expected_s: dict[int, float] = {}

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def enter(self, clips: Arrays, question: Arrays | None) -> None:
        """Load, run each batch size once, the smallest first, so that its memory shows, and answer."""
        with self._dropping_out_on_failure():
            for _ in range(self._plan.loads):
                self._begin("loading")
                process = self._load(clips)
            for batch in self._contender.batches:
                self._begin(f"first run, batch {batch}")
                timed = process.turn(Turn(batch, turn_s=0.0, untimed=0))
                self._expected_s[batch] = timed.runs_s[0]
                self.result.runs_s[batch] = []
                self.result.peak_bytes[batch] = timed.peak_bytes
            if question is not None:
                self.result.outputs = process.answers(question)

    def run_round(self, number: int) -> None:
        """A turn with each batch size, unless it dropped out."""
        if self._process is None:
            return
        with self._dropping_out_on_failure():
            for batch in self._contender.batches:
                self._begin(f"round {number + 1} of {self._plan.rounds}, batch {batch}")
                untimed = 1 if self._expected_s[batch] < SETTLED_S else 0
                timed = self._process.turn(Turn(batch, self._plan.turn_s, untimed))
                self._expected_s[batch] = min(timed.runs_s)
                self.result.runs_s[batch] += timed.runs_s

    def _load(self, clips: Arrays) -> ContenderProcess:
        self._end()
        self._process = ContenderProcess(self._contender)
        self.result.load_s.append(self._process.load(clips).load_s)
        return self._process

    def _begin(self, what: str) -> None:
        self._steps.begin(f"{self._contender.title}: {what}")
        self._steps_left -= 1

    @contextmanager
    def _dropping_out_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BlvnetError as exc:
            self.result.failure = exc.message
            self._steps.leave_out(self._steps_left)
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _rotated(runners: Sequence[_Runner], by: int) -> Iterator[_Runner]:
    """All of them, another one first in each round."""
    for index in range(len(runners)):
        yield runners[(index + by) % len(runners)]

"""Which engine runs a package: the one asked for, or the fastest of those that agree with PyTorch.

    candidates ──> loaded, one at a time ──> signature ──> answer to the probe clips ──> timed ──> the fastest
                  └────────────── in a process of its own, which then ends ──────────────┘

A candidate that cannot be had, or whose answer is not the package's reference, is dropped, and so is one that
takes its process down; the log says why. If none is left the package is refused. An engine that was only
tried leaves nothing in the service's memory. The choice is remembered, and a remembered one checked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TypeVar

from service.contenders.contender import Contender, Turn
from service.contenders.process import ContenderDied, ContenderProcess
from service.errors import BlvnetError, PackageError, ProviderUnavailable
from service.manifest import Manifest
from service.runtime.batches import Batches, prepare_batches
from service.runtime.config import AUTO, RuntimeConfig
from service.runtime.memory import return_freed_memory
from service.runtime.proof import open_proved
from service.runtime.providers import Candidate, candidates, engine_versions
from service.runtime.reference import check_logits, one_clip, reference_clips
from service.runtime.remembered import Remembered, machine_key, recall, remember
from service.runtime.session import InferenceFailed, Inputs, Outputs, Session
from service.runtime.signature import black_clip
from service.runtime.streams import Streams, open_streams

MEASURING_S = 1.5  # of all candidates together, their loading apart
TURNS = 3  # of each, with a run at least
LOAD_PROVED = "service.runtime.proof:load_proved"
MS = 1e3

Outcome = TypeVar("Outcome")

logger = logging.getLogger(__name__)


class ChosenBy(StrEnum):
    """How an engine came to run a package."""

    ASKED = "asked"  # the setting left no other
    MEASURED = "measured"  # it is the fastest of those that agree
    REMEMBERED = "remembered"  # it was, at an earlier start
    FIRST = "first"  # the first that works, as the package has no reference to compare by


@dataclass(frozen=True)
class Opened:
    """A package, loaded: on what, how that was chosen, and milliseconds of one clip on each candidate.

    `session` runs a clip with all threads, or a batch on a device; `streams`, where there are several
    threads, runs clips with a thread each; `batches` are the sizes that a device was prepared for.
    """

    session: Session
    chosen: ChosenBy
    measured_ms: Mapping[str, float] = field(default_factory=dict)
    streams: Streams | None = None
    batches: Batches | None = None

    @property
    def clips_per_s(self) -> float | None:
        """The most that it carries; None where that was not measured."""
        if self.batches is not None:
            return max(self.batches.rates)
        return None if self.streams is None else self.streams.pace.clips_per_s

    def close(self) -> None:
        """Give the memory back."""
        self.session.close()
        if self.streams is not None:
            self.streams.session.close()


def open_package(
    folder: Path,
    manifest: Manifest,
    config: RuntimeConfig,
    before_measuring: Callable[[], object] = lambda: None,
) -> Opened:
    """Load a package on the engine that `config` asks for, or on the best, and prove it.

    Args:
        folder: of the package, whose files have been verified.
        manifest: of the package.
        config: how to run it.
        before_measuring: called before anything is timed; returns when the machine is quiet.

    Raises:
        ProviderUnavailable: the provider cannot be had.
        PackageError: no engine runs it as its manifest says.
        InferenceFailed: its graph does not run.
    """
    return _Opening(folder, manifest, config, before_measuring).open()


class _Opening:
    """The loading of one package."""

    def __init__(
        self, folder: Path, manifest: Manifest, config: RuntimeConfig, before_measuring: Callable[[], object]
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._config = config
        self._before_measuring = before_measuring
        self._candidates = candidates(config.provider, manifest.precision)
        self._clips = reference_clips(manifest)
        self._failures: dict[Candidate, BlvnetError] = {}

    def open(self) -> Opened:
        opened = self._choose()
        with ExitStack() as on_failure:
            on_failure.callback(opened.close)
            streams, batches = self._streams(opened.session), self._batches(opened.session)
            on_failure.pop_all()
        return replace(opened, streams=streams, batches=batches)

    def _choose(self) -> Opened:
        if len(self._candidates) == 1:
            (only,) = self._candidates
            return Opened(self._load(only), self._without_measuring())
        if self._clips is None:
            return self._first()
        return self._remembered() or self._fastest(self._clips)

    def _streams(self, session: Session) -> Streams | None:
        """The chosen engine's one-thread form; None where there is but one thread."""
        if self._config.threads == 1 or session.runtime.on_device:
            return None
        candidate = Candidate(session.runtime.provider, session.runtime.arithmetic)
        self._before_measuring()
        streams = open_streams(
            session,
            black_clip(self._manifest.clip),
            self._config,
            lambda config: self._load(candidate, config),
        )
        return_freed_memory()
        return streams

    def _batches(self, session: Session) -> Batches | None:
        """The batches that a device runs; None on cores, which carry no more with any."""
        if not session.runtime.on_device:
            return None
        clips = self._clips or black_clip(self._manifest.clip)
        return prepare_batches(session, clips, self._config.max_batch, self._check_batch)

    def _check_batch(self, outputs: Outputs) -> None:
        """A device may compute each batch size by other algorithms."""
        if self._manifest.reference is not None:
            check_logits(outputs.logits, self._manifest.reference)

    def _without_measuring(self) -> ChosenBy:
        return ChosenBy.FIRST if self._config.provider == AUTO else ChosenBy.ASKED

    def _first(self) -> Opened:
        for candidate in self._candidates:
            session = self._try(candidate, self._load)
            if session is not None:
                return Opened(session, ChosenBy.FIRST)
        raise self._failure()

    def _remembered(self) -> Opened | None:
        last = recall(self._config.cache_dir, self._key())
        named = {str(candidate): candidate for candidate in self._candidates}
        if last is None or last.candidate not in named:
            return None
        session = self._try(named[last.candidate], self._load)
        return None if session is None else Opened(session, ChosenBy.REMEMBERED, last.measured_ms)

    def _fastest(self, clips: Inputs) -> Opened:
        """Time all that agree, one at a time, and load the fastest."""
        self._before_measuring()
        clip = one_clip(clips, 0)
        measured: dict[Candidate, float] = {}
        for candidate in self._candidates:
            run_s = self._try(candidate, lambda tried: self._median_run_s(tried, clip))
            if run_s is not None:
                measured[candidate] = MS * run_s
        if not measured:
            raise self._failure()
        best = min(measured, key=measured.__getitem__)
        shown = {str(candidate): round(value, 3) for candidate, value in measured.items()}
        remember(self._config.cache_dir, self._key(), Remembered(str(best), shown))
        return Opened(self._load(best), ChosenBy.MEASURED, shown)

    def _median_run_s(self, candidate: Candidate, clip: Inputs) -> float:
        """Seconds that the candidate takes for a clip, loaded and proved in a process of its own."""
        options = {"folder": self._folder, "candidate": candidate, "config": self._config}
        contender = Contender(str(candidate), LOAD_PROVED, options, self._config.threads)
        turn = Turn(batch=1, turn_s=MEASURING_S / len(self._candidates) / TURNS, untimed=0)
        with ContenderProcess(contender) as process:
            process.load(clip)
            return median(run_s for _ in range(TURNS) for run_s in process.turn(turn).runs_s)

    def _try(self, candidate: Candidate, attempt: Callable[[Candidate], Outcome]) -> Outcome | None:
        """What comes of an attempt with a candidate; None where it fails, with the reason in the log."""
        try:
            return attempt(candidate)
        except ProviderUnavailable as exc:
            logger.info("%s is left out: %s", candidate, exc.message)
            self._failures[candidate] = exc
        except (PackageError, InferenceFailed, ContenderDied) as exc:
            logger.warning("%s is left out for %s: %s", candidate, self._name(), exc.message)
            self._failures[candidate] = exc
        return None

    def _load(self, candidate: Candidate, config: RuntimeConfig | None = None) -> Session:
        return open_proved(candidate, self._folder, self._manifest, config or self._config, self._clips)

    def _failure(self) -> BlvnetError:
        """Why no candidate will do: the package is bad, unless there was none to try it on."""
        if all(isinstance(exc, ProviderUnavailable) for exc in self._failures.values()):
            return ProviderUnavailable(_reasons(self._failures))
        blamed = {
            candidate: exc
            for candidate, exc in self._failures.items()
            if not isinstance(exc, ProviderUnavailable)
        }
        return PackageError(_reasons(blamed))

    def _name(self) -> str:
        return f"{self._manifest.name}/{self._manifest.version}"

    def _key(self) -> dict[str, object]:
        """Everything that the choice depends on."""
        return {
            "graphs": [graph.sha256 for graph in self._manifest.graph_files()],
            "engines": dict(engine_versions()),
            "candidates": [str(candidate) for candidate in self._candidates],
            "threads": self._config.threads,
            "streams": self._config.streams,
            **machine_key(),
        }


def _reasons(failures: Mapping[Candidate, BlvnetError]) -> str:
    """What each says, and who it was where they do not say the same."""
    different = {exc.message for exc in failures.values()}
    if len(different) == 1:
        return different.pop()
    return "; ".join(f"{candidate}: {exc.message}" for candidate, exc in failures.items())

"""Which engine runs a package: the one asked for, or the fastest of those that agree with PyTorch.

    candidates ──> loaded, one at a time ──> signature ──> answer to the probe clips ──> timed ──> the fastest

A candidate that cannot be had, or whose answer is not the package's reference, is dropped, and the log says
why. If none is left the package is refused. The choice is remembered, and a remembered one checked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from service.errors import BlvnetError, PackageError, ProviderUnavailable
from service.manifest import Manifest
from service.runtime.batches import Batches, prepare_batches
from service.runtime.config import AUTO, RuntimeConfig
from service.runtime.memory import return_freed_memory
from service.runtime.providers import Candidate, candidates, engine_versions, open_candidate
from service.runtime.reference import check_logits, check_reference, one_clip, reference_clips
from service.runtime.remembered import Remembered, machine_key, recall, remember
from service.runtime.session import InferenceFailed, Inputs, Outputs, Session
from service.runtime.signature import black_clip, check_signature, warm_up
from service.runtime.streams import Streams, open_streams
from service.runtime.timing import median_run_s

MEASURING_S = 1.5  # of all candidates together, their loading apart
MS = 1e3

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
        try:
            return replace(
                opened, streams=self._streams(opened.session), batches=self._batches(opened.session)
            )
        except BaseException:
            opened.close()
            raise

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
            session = self._try(candidate)
            if session is not None:
                return Opened(session, ChosenBy.FIRST)
        raise self._failure()

    def _remembered(self) -> Opened | None:
        last = recall(self._config.cache_dir, self._key())
        named = {str(candidate): candidate for candidate in self._candidates}
        if last is None or last.candidate not in named:
            return None
        session = self._try(named[last.candidate])
        return None if session is None else Opened(session, ChosenBy.REMEMBERED, last.measured_ms)

    def _fastest(self, clips: Inputs) -> Opened:
        """Time all that agree, one at a time, and load the fastest for good."""
        self._before_measuring()
        seconds = MEASURING_S / len(self._candidates)
        measured: dict[Candidate, float] = {}
        for candidate in self._candidates:
            session = self._try(candidate)
            if session is not None:
                try:
                    measured[candidate] = MS * median_run_s(session, one_clip(clips, 0), seconds)
                finally:
                    session.close()
                    del session
                    return_freed_memory()
        if not measured:
            raise self._failure()
        best = min(measured, key=measured.__getitem__)
        shown = {str(candidate): round(value, 3) for candidate, value in measured.items()}
        remember(self._config.cache_dir, self._key(), Remembered(str(best), shown))
        return Opened(self._load(best), ChosenBy.MEASURED, shown)

    def _try(self, candidate: Candidate) -> Session | None:
        """The candidate, loaded and proved; None where it fails, with the reason in the log."""
        try:
            return self._load(candidate)
        except ProviderUnavailable as exc:
            logger.info("%s is left out: %s", candidate, exc.message)
            self._failures[candidate] = exc
        except (PackageError, InferenceFailed) as exc:
            logger.warning("%s is left out for %s: %s", candidate, self._name(), exc.message)
            self._failures[candidate] = exc
        return None

    def _load(self, candidate: Candidate, config: RuntimeConfig | None = None) -> Session:
        session = open_candidate(candidate, self._folder, self._manifest, config or self._config)
        try:
            check_signature(session, self._manifest)
            warm_up(session, self._manifest)
            check_reference(session, self._manifest, self._clips)
        except BaseException:
            session.close()
            raise
        return_freed_memory()
        return session

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

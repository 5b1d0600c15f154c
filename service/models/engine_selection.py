"""Selection of the engine that runs a package: the requested one, or the fastest that agrees with PyTorch.

    candidates ──> loaded, one at a time ──> verified ──> timed ──> the fastest is loaded to serve
                  └─────── in its own process ───────┘

A candidate that is not available, gives wrong answers or crashes its process is skipped, and the log says
why. If none remains, the package is refused. Since candidates are timed in other processes, the service only
loads the engine that serves. The selection is cached, and a cached one is verified again when it is loaded.
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

from service.engines.batch_sizes import BatchSizes, prepare_batches
from service.engines.concurrency import ConcurrentSession, open_concurrent
from service.engines.memory import return_freed_memory
from service.engines.providers import Candidate, EngineConfig, Provider, candidates, engine_versions
from service.engines.session import InferenceFailed, Inputs, Session
from service.errors import BlvnetError, PackageError, ProviderUnavailable
from service.models.selection_cache import CachedSelection, machine_key, read_selection, write_selection
from service.models.verify import black_clip, check_answers, one_clip, open_verified, reference_clips
from service.packages.manifest import Manifest
from service.subprocesses.process import WorkloadDied, WorkloadProcess
from service.subprocesses.workload import Repeat, Workload

MEASURING_S = 1.5  # for all candidates together, without loading
REPEATS = 3  # for each candidate, with at least one run
LOAD_VERIFIED = "service.models.verify:load_verified"
MS = 1e3

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ChosenBy(StrEnum):
    """How the engine of a package was selected."""

    ASKED = "asked"  # the provider setting allows one candidate
    MEASURED = "measured"  # the fastest that agrees with the reference
    REMEMBERED = "remembered"  # measured at an earlier start
    FIRST = "first"  # the first that works: without a reference, candidates cannot be compared


@dataclass(frozen=True)
class Opened:
    """A loaded package.

    Attributes:
        session: Runs a clip with all threads, or a batch on a GPU.
        chosen: How its engine was selected.
        measured_ms: Milliseconds that one clip takes on each compared candidate.
        concurrent: Runs clips with one thread each; None on GPUs and with a single thread.
        batches: Prepared batch sizes on a GPU; None on CPUs.
    """

    session: Session
    chosen: ChosenBy
    measured_ms: Mapping[str, float] = field(default_factory=dict)
    concurrent: ConcurrentSession | None = None
    batches: BatchSizes | None = None

    @property
    def clips_per_s(self) -> float | None:
        """Maximum throughput; None if it was not measured."""
        if self.batches is not None:
            return max(self.batches.rates)
        return None if self.concurrent is None else self.concurrent.profile.clips_per_s

    def close(self) -> None:
        """Free the memory."""
        self.session.close()
        if self.concurrent is not None:
            self.concurrent.session.close()


def open_package(
    folder: Path,
    manifest: Manifest,
    config: EngineConfig,
    before_measuring: Callable[[], object] = lambda: None,
) -> Opened:
    """Load and verify a package on the provider of `config`, or on the fastest for `auto`.

    Args:
        folder: Folder of the package, whose checksums have been verified.
        manifest: Manifest of the package.
        config: How to run it.
        before_measuring: Called before each measurement; returns when the machine is idle enough.

    Raises:
        ProviderUnavailable: the provider is not available.
        PackageError: no engine runs the package as its manifest says.
        InferenceFailed: the graph does not run.
    """
    selector = _Selector(folder, manifest, config, before_measuring)
    opened = selector.select()
    session = opened.session
    with ExitStack() as on_failure:
        on_failure.callback(opened.close)
        if session.runtime.on_device:
            clips = selector.clips or black_clip(manifest.clip)
            # A GPU may use another algorithm for each batch size.
            reference = None if selector.clips is None else manifest.reference
            batches = prepare_batches(
                session, clips, config.max_batch, lambda outputs: check_answers(outputs, reference)
            )
            opened = replace(opened, batches=batches)
        elif config.threads > 1:
            candidate = Candidate(session.runtime.provider, session.runtime.arithmetic)
            before_measuring()
            concurrent = open_concurrent(
                session, black_clip(manifest.clip), config, lambda single: selector.load(candidate, single)
            )
            return_freed_memory()
            opened = replace(opened, concurrent=concurrent)
        on_failure.pop_all()
    return opened


class _Selector:
    """Selects the engine of one package and loads the package on it."""

    def __init__(
        self, folder: Path, manifest: Manifest, config: EngineConfig, before_measuring: Callable[[], object]
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._config = config
        self._before_measuring = before_measuring
        self._candidates = candidates(config.provider, manifest.precision)
        self._failures: dict[Candidate, BlvnetError] = {}
        self.clips = reference_clips(manifest)

    def load(self, candidate: Candidate, config: EngineConfig | None = None) -> Session:
        """Load and verify the package on a candidate."""
        return open_verified(candidate, self._folder, self._manifest, config or self._config, self.clips)

    def select(self) -> Opened:
        if len(self._candidates) == 1:
            automatic = self._config.provider == Provider.AUTO
            session = self.load(self._candidates[0])
            return Opened(session, ChosenBy.FIRST if automatic else ChosenBy.ASKED)
        if self.clips is not None:
            return self._cached() or self._fastest(self.clips)
        for candidate in self._candidates:
            if (found := self._try(candidate, self.load)) is not None:
                return Opened(found, ChosenBy.FIRST)
        raise self._failure()

    def _cached(self) -> Opened | None:
        cached = read_selection(self._config.cache_dir, self._key())
        named = {str(candidate): candidate for candidate in self._candidates}
        if cached is None or not {cached.candidate, *cached.measured_ms} <= named.keys():
            return None
        session = self._try(named[cached.candidate], self.load)
        return None if session is None else Opened(session, ChosenBy.REMEMBERED, cached.measured_ms)

    def _fastest(self, clips: Inputs) -> Opened:
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
        selection = CachedSelection(key=self._key(), candidate=str(best), measured_ms=shown)
        write_selection(self._config.cache_dir, selection)
        return Opened(self.load(best), ChosenBy.MEASURED, shown)

    def _median_run_s(self, candidate: Candidate, clip: Inputs) -> float:
        """Verify the candidate in another process, and return the median seconds that it takes for a clip."""
        options = {"folder": self._folder, "candidate": candidate, "config": self._config}
        workload = Workload(str(candidate), LOAD_VERIFIED, options, self._config.threads)
        repeat = Repeat(batch=1, duration_s=MEASURING_S / len(self._candidates) / REPEATS, untimed=0)
        with WorkloadProcess(workload) as process:
            process.load(clip)
            return median(run_s for _ in range(REPEATS) for run_s in process.repeat(repeat).runs_s)

    def _try(self, candidate: Candidate, attempt: Callable[[Candidate], Result]) -> Result | None:
        """Return the result of `attempt`; None if it failed, after logging and recording the reason."""
        try:
            return attempt(candidate)
        except ProviderUnavailable as exc:
            logger.info("%s is skipped: %s", candidate, exc.message)
            self._failures[candidate] = exc
        except (PackageError, InferenceFailed, WorkloadDied) as exc:
            name = f"{self._manifest.name}/{self._manifest.version}"
            logger.warning("%s is skipped for %s: %s", candidate, name, exc.message)
            self._failures[candidate] = exc
        return None

    def _failure(self) -> BlvnetError:
        """Return the error if all candidates failed. The package is at fault if any engine was available."""
        at_fault = {
            candidate: exc
            for candidate, exc in self._failures.items()
            if not isinstance(exc, ProviderUnavailable)
        }
        failures = at_fault or self._failures
        messages = {exc.message for exc in failures.values()}
        if len(messages) == 1:
            reason = messages.pop()
        else:
            reason = "; ".join(f"{candidate}: {exc.message}" for candidate, exc in failures.items())
        return PackageError(reason) if at_fault else ProviderUnavailable(reason)

    def _key(self) -> dict[str, object]:
        """Return everything that the selection depends on."""
        return {
            "graphs": [graph.sha256 for graph in self._manifest.graph_files()],
            "engines": dict(engine_versions()),
            "candidates": [str(candidate) for candidate in self._candidates],
            "threads": self._config.threads,
            "concurrency": self._config.concurrency,
            **machine_key(),
        }

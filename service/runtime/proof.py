"""A package on one engine, proved: it runs, its shapes are those of its manifest, its answers PyTorch's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from service.contenders.contender import Arrays, Workload
from service.manifest import Manifest, read_manifest
from service.runtime.config import RuntimeConfig
from service.runtime.memory import return_freed_memory
from service.runtime.providers import Candidate, open_candidate
from service.runtime.reference import check_reference, reference_clips
from service.runtime.session import Inputs, Session
from service.runtime.signature import check_signature, warm_up


def open_proved(
    candidate: Candidate, folder: Path, manifest: Manifest, config: RuntimeConfig, clips: Inputs | None
) -> Session:
    """Load a package on an engine, and hold it against its manifest.

    Args:
        candidate: the engine.
        folder: of the package, whose files have been verified.
        manifest: of the package.
        config: how to run it.
        clips: those of `reference_clips`.

    Raises:
        ProviderUnavailable: the engine cannot be had.
        PackageError: the graph cannot be loaded, or is not what the manifest says.
        InferenceFailed: the graph does not run.
    """
    session = open_candidate(candidate, folder, manifest, config)
    with ExitStack() as on_failure:
        on_failure.callback(session.close)
        check_signature(session, manifest)
        warm_up(session, manifest)
        check_reference(session, manifest, clips)
        on_failure.pop_all()
    return_freed_memory()
    return session


def load_proved(folder: Path, candidate: Candidate, config: RuntimeConfig) -> Workload:
    """The same as a contender in a process of its own; it answers with nothing, as it is asked for its time.

    Raises:
        BlvnetError: as `open_proved`.
    """
    manifest = read_manifest(folder)
    session = open_proved(candidate, folder, manifest, config, reference_clips(manifest))

    def run(clips: Arrays) -> Arrays:
        session.run(clips)
        return {}

    return run

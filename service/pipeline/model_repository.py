"""The models that serve, and how that changes while they do.

    folder ──scan──> versions that the policy wants ──loaded and warmed, one at a time──> READY
                                        └── refused, with the reason; what served goes on
    what READY replaced ──last request answered──> UNLOADING ──> UNLOADED, its memory given back

A change is made beside what serves and published in one step, so a request finds either the old version or
the new one, and keeps what it found. Changes take turns, model by model, and each waits until the one before
has given its memory back: what is in memory beyond what serves is the next versions of one model at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from service.errors import (
    BlvnetError,
    ModelNotFound,
    ModelRefused,
    NotReady,
    PackageError,
    ProviderUnavailable,
)
from service.manifest import Manifest, read_manifest
from service.packages import (
    NO_VERSION,
    Model,
    OpenPackage,
    Package,
    VersionPolicy,
    described,
    find_packages,
    load_package,
)
from service.pipeline.batcher import BatcherState
from service.pipeline.self_test import WatchedBatcher
from service.pipeline.serving import Serving
from service.runtime.choice import Opened
from service.runtime.session import InferenceFailed

Key = tuple[str, int]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ModelState(StrEnum):
    """What has become of a package."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"  # takes no new requests, and finishes those that it has
    UNLOADED = "unloaded"  # it is in the folder, and not asked for
    REFUSED = "refused"


@dataclass(frozen=True)
class ModelEntry:
    """A line of the listing.

    `manifest` and `opened` are those of a version that serves, `reason` that of a package that was refused. A
    version that serves has one when its package has changed in the folder since, and is refused as it is now.
    """

    name: str
    version: int
    state: ModelState
    manifest: Manifest | None = None
    opened: Opened | None = None
    reason: str | None = None

    @property
    def provider(self) -> str | None:
        """Where it runs, in the words of the setting."""
        return None if self.opened is None else self.opened.session.runtime.provider


class ModelRepository:
    """The versions that serve of every model in a folder; all methods belong to the event loop.

    Args:
        root: folder of packages.
        open_package: loads a package and proves it; see `service.runtime.choice.open_package`.
        serve: makes and starts the batcher of a model.
        default: name of the model for requests that name none; the alphabetically first, if not given.
        versions_kept: how many versions of a model serve side by side.
    """

    def __init__(
        self,
        root: Path,
        open_package: OpenPackage,
        serve: Callable[[Model], WatchedBatcher],
        *,
        default: str | None = None,
        versions_kept: int = 1,
    ) -> None:
        self._root = root
        self._open_package = open_package
        self._serve = serve
        self._default = default
        self._usual_policy = VersionPolicy(versions_kept)
        self._policies: dict[str, VersionPolicy] = {}
        self._packages: dict[str, list[Package]] = {}
        self._ready: dict[str, dict[int, Serving]] = {}
        self._unloading: dict[Serving, asyncio.Task[None]] = {}
        self._refused: dict[Key, str] = {}
        self._loading: Key | None = None
        self._started = False
        self._change = asyncio.Lock()
        # Not the thread of inference, which goes on; and one, as engines are opened one at a time. It has the
        # priority and the cores of the others: threads that an engine starts in it would have the lower ones
        # too, for as long as the model serves.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading")

    async def start(self) -> None:
        """Find and load the packages.

        Raises:
            PackageError: there is none, none is good, or the default one is not; one line with the reasons.
            ProviderUnavailable: the provider that was asked for cannot be had.
        """
        await self.rescan()
        if not self._ready:
            reasons = "; ".join(
                f"{name}/{version}: {reason}" for (name, version), reason in self._refused.items()
            )
            raise PackageError(f"{self._root}: no model package can be served: {reasons}")
        if self._default is not None and self._default not in self._ready:
            raise PackageError(f"{self._root}: the default model {self._default!r} is not among those served")
        self._started = True

    async def rescan(self) -> None:
        """Look for packages that are new, have changed or have gone, and serve what is to serve.

        Raises:
            PackageError: there is no package at all; what serves goes on.
        """
        async with self._change:
            await self._scan()
            for name in sorted(self._packages.keys() | self._ready.keys()):
                await self._bring_up(name)

    async def load(self, name: str, policy: VersionPolicy | None = None) -> None:
        """Serve a model as it is in the folder now, and return when it does.

        Args:
            name: of the model.
            policy: which versions are to serve, from now on; as the settings have it, if None.

        Raises:
            ModelNotFound: there is no such package.
            ModelRefused: a version that was to serve cannot; what served before goes on.
        """
        async with self._change:
            try:
                await self._scan()
            except PackageError as exc:
                reason = exc.message.removeprefix(f"{self._root}: ")
                raise ModelRefused(f"The folder of packages: {reason}.") from exc
            policy = policy or self._usual_policy
            self._check_there(name, policy)
            self._policies[name] = policy
            refused = await self._bring_up(name)
            if refused:
                raise ModelRefused(f"{'; '.join(refused)}; served: {_listed(self._ready.get(name, ()))}.")

    async def unload(self, name: str) -> None:
        """Stop serving a model until it is loaded by name, and return when its memory is given back.

        Raises:
            ModelNotFound: there is no such model.
        """
        async with self._change:
            if name not in self._packages.keys() | self._ready.keys():
                raise ModelNotFound(f"There is no model {name[:128]!r}.")
            self._policies[name] = NO_VERSION
            self._publish(name, {})
            await self._unloaded()

    async def close(self) -> None:
        """Unload everything; requests that still hold a version fail."""
        async with self._change:
            for name in list(self._ready):
                self._publish(name, {})
            for serving in self._unloading:
                serving.abandon()
            await self._unloaded()
        self._thread.shutdown()

    def get(self, name: str | None = None, version: int | None = None) -> Serving:
        """What answers requests for that name: the highest version that serves; the default model for None.

        Raises:
            NotReady: no model serves at all.
            ModelNotFound: no such model serves, or not that version of it.
        """
        if not self._ready:
            raise NotReady(NO_MODEL)
        if name is None:
            name = self._default or min(self._ready)
        if name not in self._ready:
            served = ", ".join(sorted(self._ready))
            raise ModelNotFound(f"There is no model {name[:128]!r}; served are {served}.")
        versions = self._ready[name]
        if version is not None and version not in versions:
            raise ModelNotFound(f"Version {version} of {name} does not serve; served: {_listed(versions)}.")
        return versions[max(versions) if version is None else version]

    def versions(self, name: str) -> list[int]:
        """The versions of a model that serve, ascending."""
        return sorted(self._ready.get(name, ()))

    def serving(self) -> list[Serving]:
        """Every version that serves, and those that have yet to finish."""
        return [*self._all_ready(), *self._unloading]

    def readiness(self) -> tuple[bool, str]:
        """Whether models serve, and if not, why."""
        if not self._ready:
            return False, NO_MODEL
        for serving in self._all_ready():
            if serving.batcher.state is BatcherState.CLOSED:
                return False, "Inference has stopped."
            if (problem := serving.batcher.problem()) is not None:
                return False, f"Model {serving.manifest.name} does not answer: {problem}"
        return True, ""

    def entries(self) -> tuple[ModelEntry, ...]:
        """All packages, by name, the higher version first."""
        keys = {(name, package.version) for name, packages in self._packages.items() for package in packages}
        keys |= {serving.key for serving in self.serving()}
        return tuple(self._entry(*key) for key in sorted(keys, key=lambda key: (key[0], -key[1])))

    def _entry(self, name: str, version: int) -> ModelEntry:
        key = name, version
        reason = self._refused.get(key)
        if (serving := self._ready.get(name, {}).get(version)) is not None:
            model = serving.model
            return ModelEntry(name, version, ModelState.READY, model.manifest, model.opened, reason)
        if key == self._loading:
            return ModelEntry(name, version, ModelState.LOADING)
        if any(serving.key == key for serving in self._unloading):
            return ModelEntry(name, version, ModelState.UNLOADING)
        state = ModelState.UNLOADED if reason is None else ModelState.REFUSED
        return ModelEntry(name, version, state, reason=reason)

    def _all_ready(self) -> list[Serving]:
        return [serving for versions in self._ready.values() for serving in versions.values()]

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _scan(self) -> None:
        """See what is in the folder; a reason against a package that has gone is forgotten."""
        found = await self._in_thread(partial(find_packages, self._root))
        self._packages = {}
        for package in found:
            self._packages.setdefault(package.name, []).append(package)
        there = {(package.name, package.version) for package in found}
        self._refused = {key: reason for key, reason in self._refused.items() if key in there}

    def _check_there(self, name: str, policy: VersionPolicy) -> None:
        if name not in self._packages:
            there = ", ".join(sorted(self._packages))
            raise ModelNotFound(f"There is no package of a model {name[:128]!r}; there are {there}.")
        missing = (policy.only or frozenset()) - {package.version for package in self._packages[name]}
        if missing:
            raise ModelNotFound(f"There is no package {name}/{min(missing)}.")

    async def _bring_up(self, name: str) -> list[str]:
        """Serve what the policy wants of a model; what was refused on the way, with the reasons."""
        await self._unloaded()
        policy = self._policies.get(name, self._usual_policy)
        serving: dict[int, Serving] = {}
        refused: list[str] = []
        try:
            for package in policy.candidates(self._packages.get(name, ())):
                if len(serving) == policy.most:
                    break
                good = await self._loaded(package)
                if good is not None:
                    serving[package.version] = good
                if reason := self._refused.get((name, package.version)):
                    refused.append(f"{name}/{package.version} is refused: {reason}")
        except BaseException:
            self._retire(_not_in(serving.values(), self._all_ready()))
            raise
        if serving or not refused:  # with nothing to take its place, what serves goes on
            self._publish(name, serving)
        return refused

    async def _loaded(self, package: Package) -> Serving | None:
        """The package, serving: as it is in the folder now, or as it was before that was refused, or None."""
        key = package.name, package.version
        current = self._ready.get(package.name, {}).get(package.version)
        load = partial(
            _load_unless_same, package, None if current is None else current.manifest, self._open_package
        )
        self._loading = key
        try:
            model = await self._in_thread(load)
        except (PackageError, InferenceFailed, ProviderUnavailable) as exc:
            if isinstance(exc, ProviderUnavailable) and not self._started:
                raise  # nothing could serve; later on it is one package that cannot
            self._refuse(package, exc)
            return current
        finally:
            self._loading = None
        self._refused.pop(key, None)
        return current if model is None else Serving(model, self._serve(model))

    def _refuse(self, package: Package, exc: BlvnetError) -> None:
        reason = exc.message.removeprefix(f"{package.folder}: ")
        logger.error("model %s/%d is refused: %s", package.name, package.version, reason)
        self._refused[package.name, package.version] = reason

    def _publish(self, name: str, serving: dict[int, Serving]) -> None:
        """Let these versions answer from now on, and unload those that did."""
        before = self._ready.pop(name, {})
        if serving:
            self._ready[name] = serving
        for new in _not_in(serving.values(), before.values()):
            logger.info("model %s serves on %s", new, described(new.model.opened))
        self._retire(_not_in(before.values(), serving.values()))

    def _retire(self, servings: Iterable[Serving]) -> None:
        """Unload these once no request holds them."""
        for serving in servings:
            task = asyncio.create_task(self._unload(serving), name=f"unload {serving}")
            task.add_done_callback(_log_failure)
            self._unloading[serving] = task

    async def _unload(self, serving: Serving) -> None:
        try:
            await serving.free()
            await serving.batcher.close()
            await self._in_thread(serving.unload)
            logger.info("model %s is unloaded", serving)
        except TimeoutError:
            logger.critical("an inference of model %s does not end; it keeps its memory and thread", serving)
        finally:
            del self._unloading[serving]

    async def _unloaded(self) -> None:
        """Wait until all that was replaced has given its memory back."""
        if self._unloading:
            await asyncio.wait(list(self._unloading.values()))


NO_MODEL = "No model serves."


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a model could not be unloaded", exc_info=failure)


def _load_unless_same(package: Package, current: Manifest | None, open_package: OpenPackage) -> Model | None:
    """Load a package; None where what is loaded already is the same to the last byte."""
    if current is not None and read_manifest(package.folder) == current:
        return None
    return load_package(package, open_package)


def _not_in(some: Iterable[Serving], others: Iterable[Serving]) -> list[Serving]:
    known = set(others)
    return [serving for serving in some if serving not in known]


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"

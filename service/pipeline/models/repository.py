"""The folder of model packages, and loading and unloading of the packages while the service runs.

    folder ──scan──> versions that the policy selects ──loaded and warmed up──> published, all at once
                          └── refused, with the reason; the previous versions continue to serve

A taught package has no graph. Its base is a serving model, or a package that is loaded only as a base. The
base stays loaded while a taught model uses it, even after it was replaced by another version.

A change is loaded while the previous versions serve. The changes of one model run in order, and each first
waits until the previous one has released its memory. Changes of different models take turns, since engines
are compared by their speed; a load that takes long loses its turn, so that it never stops the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from service.engines.session import InferenceFailed
from service.errors import ModelNotFound, ModelRefused, PackageError, ProviderUnavailable
from service.models.loading import NO_VERSION, Model, OpenPackage, VersionPolicy
from service.packages.folders import Package
from service.pipeline.models.entry import ModelEntry, ModelState
from service.pipeline.models.listing import PackageListing
from service.pipeline.models.loader import PackageLoader, Turn
from service.pipeline.models.registry import ModelRegistry, listed
from service.pipeline.models.served_model import ServedHead, ServedModel, ServedVersion

# Most loads take seconds. Building engines for a GPU takes minutes; it then continues alongside other loads.
TURN_S = 30.0

logger = logging.getLogger(__name__)


class ModelRepository:
    """Loads and unloads the packages of a folder; all methods run on the event loop.

    Args:
        root: folder of packages.
        open_package: loads a package and checks it; see `service.models.engine_selection.open_package`.
        serve: wraps a loaded model and starts it.
        serve_taught: wraps a taught model and its base.
        taught: an additional folder of packages, which may be missing or empty. A model in `root` hides one
            with the same name in it.
        default: model for requests that name none; see `ModelRegistry`.
        versions_kept: number of versions of a model that serve at the same time.
        turn_s: how long a load keeps other loads waiting.

    Attributes:
        listing: The packages in the folders.
        registry: The serving versions.
    """

    def __init__(
        self,
        root: Path,
        open_package: OpenPackage,
        serve: Callable[[Model], ServedModel],
        serve_taught: Callable[[Model, ServedModel], ServedHead] = ServedHead,
        *,
        taught: Path | None = None,
        default: str | None = None,
        versions_kept: int = 1,
        turn_s: float = TURN_S,
    ) -> None:
        self._usual_policy = VersionPolicy(versions_kept)
        self._turn_s = turn_s
        self._policies: dict[str, VersionPolicy] = {}
        self._refused: dict[tuple[str, int], str] = {}
        self._loading: set[tuple[str, int]] = set()
        self._changes: dict[str, asyncio.Task[list[str]]] = {}
        self._stale: set[str] = set()  # models to check again after their current change
        self._turn = asyncio.Lock()
        self._started = False
        self.listing = PackageListing(root, taught)
        self.registry = ModelRegistry(default)
        self._loader = PackageLoader(self.registry, open_package, serve, serve_taught)

    async def start(self) -> None:
        """Find and load the packages.

        Raises:
            PackageError: there are no packages, none is valid, or the default one is invalid; the message is
                one line with the reasons.
            ProviderUnavailable: the requested provider is not available.
        """
        await self.rescan()
        while self._changes and not self.registry.serves_default():
            await asyncio.wait(self._changes.values(), return_when=asyncio.FIRST_COMPLETED)
        if not self.registry.names():
            reasons = "; ".join(
                f"{name}/{version}: {reason}" for (name, version), reason in sorted(self._refused.items())
            )
            raise PackageError(f"{self.listing.root}: no model package can be served: {reasons}")
        if not self.registry.serves_default():
            raise PackageError(
                f"{self.listing.root}: the default model {self.registry.default!r} is not among those served"
            )
        self._started = True

    async def rescan(self) -> None:
        """Find packages that are new, have changed or are gone, and serve the selected ones.

        Returns when they serve, apart from packages whose load takes longer than its turn.

        Raises:
            PackageError: there is no package at all; the serving versions continue to serve.
        """
        await self.refresh()
        self._stale |= self._changes.keys()  # they may have read the folder too early
        names = sorted(self.listing.packages.keys() | self.registry.names())
        changes = [self._changes.get(name) or self._begin_change(name) for name in names]
        done, _ = await asyncio.wait(changes, timeout=self._turn_s * len(changes))
        for change in done:
            if not change.cancelled():
                change.result()

    async def load(self, name: str, policy: VersionPolicy | None = None) -> None:
        """Serve the current package of a model in the folder, and return when it serves.

        Args:
            name: the model.
            policy: selects the versions to serve from now on; the policy of the settings if None.

        Raises:
            ModelNotFound: there is no such package.
            ModelRefused: a selected version cannot serve; the previous versions continue to serve.
        """
        try:
            await self.refresh()
        except PackageError as exc:
            reason = exc.message.removeprefix(f"{self.listing.root}: ")
            raise ModelRefused(f"The folder of packages: {reason}.") from exc
        if name in self.listing.unreadable:
            raise ModelRefused(f"Model {name} is refused: {self.listing.unreadable[name]}.")
        if name not in self.listing.packages:
            there = ", ".join(sorted(self.listing.packages))
            raise ModelNotFound(f"There is no package of a model {name[:128]!r}; there are {there}.")
        policy = policy or self._usual_policy
        missing = (policy.only or frozenset()) - {package.version for package in self.listing.packages[name]}
        if missing:
            raise ModelNotFound(f"There is no package {name}/{min(missing)}.")
        self._policies[name] = policy
        change = self._begin_change(name)
        try:
            refused = await change
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ModelRefused(f"The load of {name} was superseded by a later change.") from None
        if refused:
            served = listed(self.registry.versions(name))
            raise ModelRefused(f"{'; '.join(refused)}; served: {served}.")

    async def unload(self, name: str) -> None:
        """Stop serving a model until it is loaded by name, and return when its memory is released.

        Raises:
            ModelNotFound: there is no such model.
            ModelRefused: taught models use its graph.
        """
        if name not in self.listing.packages.keys() | self.registry.names():
            raise ModelNotFound(f"There is no model {name[:128]!r}.")
        bases = (model for model in self.registry.loaded() if model.manifest.name == name)
        users = {head.manifest.name for base in bases for head in base.taught}
        if users:
            raise ModelRefused(
                f"{name} is the base of the taught models {', '.join(sorted(users))}; unload them first."
            )
        self._policies[name] = NO_VERSION
        if (change := self._changes.get(name)) is not None:
            change.cancel()
            await asyncio.wait([change])
        self.registry.publish(name, {})
        await self.registry.unloaded(name)

    async def close(self) -> None:
        """Stop loading and unload everything; requests that still hold a version fail."""
        for change in self._changes.values():
            change.cancel()
        if self._changes:
            await asyncio.wait(self._changes.values())
        await self.registry.close()

    def entries(self) -> tuple[ModelEntry, ...]:
        """Return all packages, ordered by name, with higher versions first."""
        unloading = {model.key for model in self.registry.unloading() if not model.graph.taught}
        keys = self.listing.versions() | unloading | {model.key for model in self.registry.ready()}
        entries = []
        for name, version in sorted(keys, key=lambda key: (key[0], -key[1])):
            key, reason = (name, version), self._refused.get((name, version))
            served = self.registry.versions(name).get(version)
            if served is not None:
                model = served.model
                size = None if model.head is not None else model.feature_size
                entry = ModelEntry(
                    name, version, ModelState.READY, model.manifest, model.opened, reason, feature_size=size
                )
            elif key in self._loading:
                entry = ModelEntry(name, version, ModelState.LOADING)
            elif key in unloading:
                entry = ModelEntry(name, version, ModelState.UNLOADING)
            else:
                state = ModelState.UNLOADED if reason is None else ModelState.REFUSED
                entry = ModelEntry(name, version, state, reason=reason)
            entries.append(entry)
        return tuple(entries)

    async def refresh(self) -> None:
        """List the folders again without loading or unloading anything.

        Raises:
            PackageError: there is no package at all.
        """
        await self.listing.scan()
        there = self.listing.versions()
        self._refused = {key: reason for key, reason in self._refused.items() if key in there}

    def _begin_change(self, name: str) -> asyncio.Task[list[str]]:
        """Begin to update a model to its policy, after the change that is in progress."""
        change = asyncio.create_task(self._change(name, self._changes.get(name)), name=f"change {name}")
        self._changes[name] = change
        change.add_done_callback(partial(self._end_change, name))
        return change

    def _end_change(self, name: str, change: asyncio.Task[list[str]]) -> None:
        if self._changes.get(name) is change:
            del self._changes[name]
            if name in self._stale and not change.cancelled():
                self._begin_change(name)
            self._stale.discard(name)
        if not change.cancelled() and (failure := change.exception()) is not None and self._started:
            logger.error("model %s could not be changed", name, exc_info=failure)

    async def _change(self, name: str, previous: asyncio.Task[list[str]] | None) -> list[str]:
        """Serve the selected versions of a model; return the refused ones with the reasons.

        A previous change that has not ended within its turn is cancelled together with its unfinished load.
        """
        if previous is not None and not previous.done():
            await asyncio.wait([previous], timeout=self._turn_s)
            previous.cancel()
            await asyncio.wait([previous])
        await self.registry.unloaded(name)
        policy = self._policies.get(name, self._usual_policy)
        serving: dict[int, ServedVersion] = {}
        refused: list[str] = []
        with Turn(self._turn, self._turn_s) as turn, ExitStack() as undo:
            undo.callback(self.registry.retire_unpublished, serving.values())
            for package in policy.candidates(self.listing.packages.get(name, ())):
                if len(serving) == policy.most:
                    break
                model = await self._load(package, turn)
                if model is not None:
                    serving[package.version] = model
                if reason := self._refused.get((name, package.version)):
                    refused.append(f"{name}/{package.version} is refused: {reason}")
            undo.pop_all()
            if serving or not refused:  # without a replacement, the previous versions continue to serve
                self.registry.publish(name, serving)
        return refused

    async def _load(self, package: Package, turn: Turn) -> ServedVersion | None:
        """Load the current package from the folder; if it is refused, return its serving version, or None."""
        key = package.name, package.version
        current = self.registry.versions(package.name).get(package.version)
        self._loading.add(key)
        try:
            model = await self._loader.load(package, current, self.listing.packages, turn)
        except (PackageError, InferenceFailed, ProviderUnavailable) as exc:
            if isinstance(exc, ProviderUnavailable) and not self._started:
                raise  # at the start, no package could serve; later, only this package is affected
            self._refused[key] = reason = exc.message.removeprefix(f"{package.folder}: ")
            logger.error("model %s/%d is refused: %s", *key, reason)
            return current
        finally:
            self._loading.discard(key)
        self._refused.pop(key, None)
        return model

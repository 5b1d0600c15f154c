"""Loading of packages, with a graph or taught, so that they can serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from service.engines.session import InferenceFailed
from service.errors import PackageError
from service.models.loading import Model, OpenPackage, load_package, read_package
from service.models.taught import find_base, load_taught
from service.packages.folders import Package
from service.packages.manifest import Manifest
from service.pipeline.models.registry import ModelRegistry, in_daemon_thread
from service.pipeline.models.served_model import ServedHead, ServedModel, ServedVersion

logger = logging.getLogger(__name__)


class Turn(ExitStack):
    """The turn of one change. It is taken for the first graph that the change loads, and lost after a time.

    Contexts that are entered end with the change.
    """

    def __init__(self, lock: asyncio.Lock, limit_s: float) -> None:
        super().__init__()
        self._lock = lock
        self._limit_s = limit_s
        self._taken = False
        self._holds = False

    async def take(self) -> None:
        """Wait for the turn, unless it was taken before."""
        if not self._taken:
            await self._lock.acquire()
            self._taken = self._holds = True
            timer = asyncio.get_running_loop().call_later(self._limit_s, self._release)
            self.callback(timer.cancel)
            self.callback(self._release)

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self._lock.release()


class PackageLoader:
    """Loads packages; a graph that is already in memory is used again.

    Args:
        registry: the loaded models.
        open_package: loads a package and checks it.
        serve: wraps a loaded model and starts it.
        serve_taught: wraps a taught model and its base.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        open_package: OpenPackage,
        serve: Callable[[Model], ServedModel],
        serve_taught: Callable[[Model, ServedModel], ServedHead],
    ) -> None:
        self._registry = registry
        self._open_package = open_package
        self._serve = serve
        self._serve_taught = serve_taught
        self._opening: dict[tuple[str, int], asyncio.Event] = {}  # set when the load of the graph has ended

    async def load(
        self,
        package: Package,
        current: ServedVersion | None,
        packages: Mapping[str, Sequence[Package]],
        turn: Turn,
    ) -> ServedVersion:
        """Load a package; return `current`, the version that serves now, if the package is unchanged.

        Args:
            package: the package.
            current: its serving version, if any.
            packages: all packages by name, among which the base of a taught model is found.
            turn: the turn of the change; it holds the model until it ends.

        Raises:
            PackageError: the package, or its base, cannot be served.
            InferenceFailed: the graph does not run.
            ProviderUnavailable: the requested provider is not available.
        """
        manifest = await in_daemon_thread(partial(read_package, package))
        if manifest.base is not None:
            bases = packages.get(manifest.base.name, ())
            return await self._load_taught(package, manifest, current, bases, turn)
        if current is not None and manifest == current.manifest:
            return current
        return await self._load_graph(package, manifest, turn)

    async def _load_taught(
        self,
        package: Package,
        manifest: Manifest,
        current: ServedVersion | None,
        bases: Sequence[Package],
        turn: Turn,
    ) -> ServedVersion:
        """Load a taught package, and its base if that is not loaded; keep an unchanged package as it is."""
        assert manifest.base is not None
        found = await in_daemon_thread(partial(find_base, manifest.base, bases))
        if current is not None and manifest == current.manifest:
            return current
        try:
            base = await self._load_graph(*found, turn)
        except (PackageError, InferenceFailed) as exc:
            reason = exc.message.removeprefix(f"{found[0].folder}: ")
            raise PackageError(f"its base {manifest.base} is refused: {reason}") from exc
        if base not in self._registry.loaded():
            self._registry.retire([base])  # released with the last taught model on it
        model = await in_daemon_thread(partial(load_taught, package, manifest, base.model))
        return self._serve_taught(model, base)

    async def _load_graph(self, package: Package, manifest: Manifest, turn: Turn) -> ServedModel:
        """Return the model of a package with a graph, loaded if necessary and held until the turn ends."""
        key = package.name, package.version
        model = self._in_memory(manifest)
        if model is None:
            await turn.take()
            while (opening := self._opening.get(key)) is not None:
                await opening.wait()  # wait for a load that has lost its turn
            model = self._in_memory(manifest)
        if model is None:
            opening = self._opening[key] = asyncio.Event()
            try:
                load = partial(load_package, package, self._open_package)
                model = self._serve(await in_daemon_thread(load, _discard))
            finally:
                del self._opening[key]
                opening.set()
        turn.enter_context(model.held())
        return model

    def _in_memory(self, manifest: Manifest) -> ServedModel | None:
        return next((model for model in self._registry.loaded() if model.manifest == manifest), None)


def _discard(model: Model | None) -> None:
    """Close a model whose load was cancelled in the meantime."""
    if model is not None:
        logger.info("a load of %s/%d was given up", model.manifest.name, model.manifest.version)
        model.opened.close()

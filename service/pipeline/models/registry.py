"""The versions of each model that serve, and the unloading of those that were replaced.

published ──replaced, last request answered──> unloading ──> unloaded, its memory released
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from service.background import start_background
from service.errors import ModelNotFound, NotReady
from service.models.loading import describe
from service.packages.manifest import BaseReference
from service.pipeline.models.served_model import ServedModel, ServedVersion

NO_MODEL = "No model serves."

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ModelRegistry:
    """The serving versions; all methods run on the event loop.

    A set of versions is published in one step, so a request gets either the old version or the new one, and
    keeps it.

    Args:
        default: the model for requests that name none; if None, the alphabetically first model that is not
            taught, or the first one if all are taught.
    """

    def __init__(self, default: str | None = None) -> None:
        self.default = default
        self._first = ""  # the model for requests that name none, if `default` is None
        self._ready: dict[str, dict[int, ServedVersion]] = {}
        self._unloading: dict[ServedVersion, asyncio.Task[None]] = {}

    def get(self, name: str | None = None, version: int | None = None) -> ServedVersion:
        """Find the model for a request; without a version, the highest one.

        To use it beyond the next `await`, hold it.

        Raises:
            NotReady: no model serves at all.
            ModelNotFound: no such model, or no such version of it, serves.
        """
        if not self._ready:
            raise NotReady(NO_MODEL)
        if name is None:
            name = self.default or self._first
        if name not in self._ready:
            served = ", ".join(sorted(self._ready))
            raise ModelNotFound(f"There is no model {name[:128]!r}; served are {served}.")
        versions = self._ready[name]
        if version is not None and version not in versions:
            raise ModelNotFound(f"Version {version} of {name} does not serve; served: {listed(versions)}.")
        return versions[max(versions) if version is None else version]

    def serves_default(self) -> bool:
        """Return whether requests that name no model can be answered."""
        return bool(self._ready) if self.default is None else self.default in self._ready

    def versions(self, name: str) -> dict[int, ServedVersion]:
        """Return the serving versions of a model."""
        return self._ready.get(name, {})

    def names(self) -> set[str]:
        """Return the names of the serving models."""
        return set(self._ready)

    def ready(self) -> list[ServedVersion]:
        """Return every serving version."""
        return [model for versions in self._ready.values() for model in versions.values()]

    def unloading(self) -> list[ServedVersion]:
        """Return every replaced version that still has requests or memory."""
        return list(self._unloading)

    def loaded(self) -> list[ServedModel]:
        """Return the graphs that requests can run on: those of serving models and bases of taught ones."""
        serving = [model for model in self.ready() if isinstance(model, ServedModel)]
        kept = [model for model in self._unloading if isinstance(model, ServedModel) and model.taught]
        return serving + kept

    def loaded_base(self, reference: BaseReference) -> ServedModel | None:
        """Return the loaded model for this base, even if it only serves taught models; None without one."""
        wanted = (reference.name, reference.version, reference.sha256)
        for model in self.loaded():
            if (*model.key, model.manifest.sha256) == wanted:
                return model
        return None

    def problem(self) -> str | None:
        """Return the reason why no model at all can answer, or None."""
        problem: str | None = NO_MODEL
        for model in self.ready():
            problem = model.problem()
            if problem is None:
                break
        return problem

    def publish(self, name: str, versions: dict[int, ServedVersion]) -> None:
        """Serve these versions of a model from now on, and unload the others."""
        before = self._ready.pop(name, {})
        if versions:
            self._ready[name] = versions
        self._first = min(self._ready, key=self._preference, default="")
        for model in versions.values():
            if (unload := self._unloading.pop(model, None)) is not None:
                unload.cancel()  # it was only kept for taught models, and now serves under its own name
        for new in _not_in(versions.values(), before.values()):
            logger.info("model %s serves on %s", new, describe(new.model.opened))
        self.retire(_not_in(before.values(), versions.values()))

    def retire(self, models: Iterable[ServedVersion]) -> None:
        """Unload these models once no request holds them."""
        for model in models:
            task = start_background(self._unload(model), name=f"unload {model}")
            task.add_done_callback(_log_failure)
            self._unloading[model] = task

    def retire_unpublished(self, loaded: Iterable[ServedVersion]) -> None:
        """Unload those that do not serve, because a change failed after it had loaded them."""
        self.retire(_not_in(loaded, [*self.ready(), *self._unloading]))

    async def unloaded(self, name: str) -> None:
        """Wait until replaced versions of a model, and unused ones of others, have released their memory.

        This does not wait for a version of another model that a slow request holds, because that may take
        minutes, or for a base that taught models keep loaded.
        """
        waits = [
            task
            for model, task in self._unloading.items()
            if not model.is_held or (model.manifest.name == name and not model.graph.taught)
        ]
        if waits:
            await asyncio.wait(waits)

    async def close(self) -> None:
        """Unload everything; requests that still hold a model fail."""
        for name in list(self._ready):
            self.publish(name, {})
        for model in self._unloading:
            model.abandon()
        if self._unloading:
            await asyncio.wait(list(self._unloading.values()))

    def _preference(self, name: str) -> tuple[bool, str]:
        """Return the sort key of a model as a candidate for the default model."""
        return self._ready[name][max(self._ready[name])].manifest.base is not None, name

    async def _unload(self, model: ServedVersion) -> None:
        try:
            await model.unused()
            await model.close()
            await in_daemon_thread(model.unload)
            logger.info("model %s is unloaded", model)
        except TimeoutError:
            logger.critical("an inference of model %s does not end; it keeps its memory and thread", model)
        finally:
            if self._unloading.get(model) is asyncio.current_task():  # otherwise it serves again
                del self._unloading[model]


async def in_daemon_thread(
    function: Callable[[], Result], discard: Callable[[Result], object] = lambda _: None
) -> Result:
    """Run a blocking function in a daemon thread, which does not keep the process from exiting.

    If the caller is cancelled, the function continues, and `discard` receives its result.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, failure: BaseException | None) -> None:
        if future.cancelled():
            if failure is None:
                discard(result)  # type: ignore[arg-type]
        elif failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller
            failure = exc
        with suppress(RuntimeError):  # the loop is closed: nothing waits, and the process is about to exit
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="loading", daemon=True).start()
    return await future


def listed(versions: Iterable[int]) -> str:
    """Format version numbers for a message."""
    return ", ".join(map(str, sorted(versions))) or "none"


def _not_in(some: Iterable[ServedVersion], others: Iterable[ServedVersion]) -> list[ServedVersion]:
    known = set(others)
    return [model for model in some if model not in known]


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a model could not be unloaded", exc_info=failure)

"""Trainings, which turn the examples of a model into a version that serves.

One training runs at a time, because requests also need the cores; others wait for their turn.
"""

from __future__ import annotations

import asyncio
import logging
import time

from service.errors import StorageFull, TooFewExamples, TrainingFailed, TrainingInProgress
from service.observer import Observer, TrainingEnd
from service.packages.manifest import Manifest
from service.pipeline.models.repository import ModelRepository
from service.taught.lessons import Lessons
from service.taught.packages import TaughtPackages
from service.taught.store import ExampleStore
from service.taught.training import run_training
from service.taught.training_process import LabelledFile, TaskResult, TrainingOutcome, TrainingTask

RETRY_S = 10.0

logger = logging.getLogger(__name__)


class Trainings:
    """Trains the models of one folder.

    Args:
        store: the examples.
        lessons: finds the base of the examples.
        packages: stores the versions.
        models: serves the versions.
        observer: receives the results.
    """

    def __init__(
        self,
        store: ExampleStore,
        lessons: Lessons,
        packages: TaughtPackages,
        models: ModelRepository,
        observer: Observer,
    ) -> None:
        self._store = store
        self._lessons = lessons
        self._packages = packages
        self._models = models
        self._observer = observer
        self._turn = asyncio.Lock()
        self._training: set[str] = set()

    def is_training(self, name: str) -> bool:
        """Whether a training of the model is in progress or waits for another one."""
        return name in self._training

    def require_idle(self, name: str) -> None:
        """Raise `TrainingInProgress` if the model is being trained."""
        if name in self._training:
            raise TrainingInProgress(f"{name} is being trained; wait for the result.")

    async def train(self, name: str, *, mirror: bool) -> tuple[Manifest, list[str]]:
        """Train a new version; return its manifest once it serves, and the files that were left out.

        Args:
            name: the model.
            mirror: whether the mirror image of a clip has the same label.

        Raises:
            TrainingInProgress: the model is already being trained.
            BaseChanged: its base is not loaded.
            TooFewExamples: there are too few examples to learn from.
            StorageFull: the package cannot be written.
            TrainingFailed: the process ended without a result.
        """
        self.require_idle(name)
        self._training.add(name)
        start, result = time.monotonic(), TrainingEnd.FAILED
        try:
            async with self._turn:
                trained = await self._trained(name, mirror=mirror)
            result = TrainingEnd.TRAINED
        except TooFewExamples:
            result = TrainingEnd.REFUSED
            raise
        except asyncio.CancelledError:
            result = TrainingEnd.CANCELLED
            raise
        finally:
            self._training.discard(name)
            self._observer.training(result, time.monotonic() - start)
        return trained

    async def _trained(self, name: str, *, mirror: bool) -> tuple[Manifest, list[str]]:
        reference = self._store.base(name)
        if reference is None:
            raise TooFewExamples(f"{name} has no examples; add clips of at least two labels.")
        task = TrainingTask(
            name=name,
            base=self._lessons.loaded_base(name, reference).manifest,
            examples_folder=self._store.folder(name),
            examples=[
                LabelledFile(id=key, label=stored.example.label, group=stored.example.group)
                for key, stored in self._store.examples(name).items()
            ],
            models=self._packages.folder,
            mirror=mirror,
        )
        result = await run_training(task)
        _raise_failure(name, result)
        await self._models.load(name)
        await asyncio.to_thread(self._packages.delete_old, name)
        logger.info("version %s of %s is trained", result.version, name)
        return self._models.registry.get(name).manifest, result.damaged


def _raise_failure(name: str, result: TaskResult) -> None:
    message = result.message
    match result.outcome:
        case TrainingOutcome.REFUSED:
            left_out = f" ({len(result.damaged)} damaged examples are left out)" if result.damaged else ""
            raise TooFewExamples(f"{name}: {message}{left_out}.")
        case TrainingOutcome.FULL:
            raise StorageFull(f"The package of {name} cannot be written; the examples are kept.", RETRY_S)
        case TrainingOutcome.FAILED:
            raise TrainingFailed(f"The training of {name} failed: {message}; the examples are kept.", RETRY_S)

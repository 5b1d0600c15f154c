"""Teaching over HTTP: examples are added one by one, and trainings create versions that serve.

    clip ──> decoded and run by the base ──> features kept ──> training process ──> package ──> serves

All methods run on the event loop. Files are written in threads, one change at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from service.background import in_thread
from service.errors import ExampleNotFound, LabelConflict, ModelNotFound, StorageFull
from service.observer import Observer
from service.packages.manifest import Manifest
from service.pipeline.accepted_request import AcceptedRequest, Features
from service.pipeline.classification import Prediction, is_unsure, predictions
from service.pipeline.recognizer import Recognizer
from service.taught.lessons import Lesson, Lessons, TeachLimits, reference_of
from service.taught.packages import TaughtPackages
from service.taught.store import ID_DIGITS, ExampleRecord, ExampleStore, StoredExample
from service.taught.trainings import RETRY_S, Trainings
from service.workers.shared_memory import VideoFile

TOP_K = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Added:
    """A stored example, and the predictions of the serving version for its clip.

    `created` is False if the same bytes were already an example. `predictions` is None if no version serves.
    """

    id: str
    created: bool
    stored: StoredExample
    features: Features
    predictions: tuple[Prediction, ...] | None
    unsure: bool | None


class Teacher:
    """The taught models of one folder.

    Args:
        folder: folder of examples and packages.
        recognizer: runs the bases and serves the trained models.
        limits: limits of the folder.
        observer: receives the events.

    Attributes:
        store: The examples.

    Raises:
        BlvnetError: the folder cannot be used.
    """

    def __init__(self, folder: Path, recognizer: Recognizer, limits: TeachLimits, observer: Observer) -> None:
        self.limits = limits
        self.store = ExampleStore(folder)
        self._recognizer = recognizer
        self._models = recognizer.models
        self._observer = observer
        self._lessons = Lessons(self.store, self._models, limits)
        self._packages = TaughtPackages(folder / "models", self._models)
        self._trainings = Trainings(self.store, self._lessons, self._packages, self._models, observer)
        self._change = asyncio.Lock()
        self._removing: set[str] = set()
        for name in self.store.names():
            observer.taught_examples(name, len(self.store.examples(name)))

    def close(self) -> None:
        """Let another process use the folder."""
        self.store.close()

    def names(self) -> list[str]:
        """Models that have examples or a package, by name."""
        return sorted(self._lessons.names() - self._removing)

    def is_training(self, name: str) -> bool:
        """Whether a training of the model is in progress or waits for another one."""
        return self._trainings.is_training(name)

    def require(self, name: str) -> None:
        """Raise `ModelNotFound` unless the model has examples or a package, and is not being deleted."""
        if name not in self._lessons.names() - self._removing:
            raise ModelNotFound(f"There is no taught model {name[:128]!r}; /v1/taught lists them.")

    def lesson(self, name: str, label: str, group: str | None, base: str | None) -> Lesson:
        """Check a new example before its clip is received; see `Lessons.lesson`."""
        return self._lessons.lesson(name, label, group, base)

    async def add(self, request: AcceptedRequest, lesson: Lesson, video: VideoFile) -> Added:
        """Run the clip and store its features.

        Raises:
            RequestError: the subclass says why; `service.errors` lists them.
        """
        digest = await asyncio.to_thread(_sha256, video)
        example_id = digest[:ID_DIGITS]
        features = await request.features(video)
        example = ExampleRecord(
            label=lesson.label,
            group=lesson.group,
            added_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            base=reference_of(lesson.base.manifest),
        )
        best, unsure = self._as_taught(lesson, features)
        name = lesson.name
        async with self._change:
            known = self.store.examples(name).get(example_id)
            if known is not None and known.example.label != lesson.label:
                raise LabelConflict(
                    f"This clip is an example of {known.example.label!r} already; delete that one to change"
                    " its label."
                )
            if known is None:
                # Check again, because other examples may have been added in the meantime.
                self._lessons.check_label(name, lesson.label)
                self._lessons.check_limits(name)
                self._lessons.check_base(name, example.base)
                await self._write(lambda: self.store.add(name, example_id, example, features.array))
                self._observer.taught_examples(name, len(self.store.examples(name)))
        stored = self.store.examples(name)[example_id]
        return Added(example_id, known is None, stored, features, best, unsure)

    async def remove_example(self, name: str, example_id: str) -> None:
        """Delete an example.

        Raises:
            ModelNotFound: there is no such model.
            ExampleNotFound: it has no such example.
        """
        self.require(name)
        async with self._change:
            if example_id not in self.store.examples(name):
                raise ExampleNotFound(f"{name} has no example {example_id[:64]!r}.")
            await self._write(lambda: self.store.remove(name, example_id))
            self._observer.taught_examples(name, len(self.store.examples(name)))

    async def remove(self, name: str) -> None:
        """Delete a model with its examples and packages; requests in progress are still answered.

        Raises:
            ModelNotFound: there is no such model.
            TrainingInProgress: it is being trained.
        """
        self.require(name)
        self._trainings.require_idle(name)
        # A training that began now would bring the model back, or find half of its examples.
        self._removing.add(name)
        try:
            async with self._change:
                if name in self._models.listing.taught_names():
                    await self._models.unload(name)
                    await self._write(lambda: self._packages.delete(name))
                    await self._models.refresh()
                await self._write(lambda: self.store.remove_all(name))
        finally:
            self._removing.discard(name)
        self._observer.taught_examples(name, None)
        logger.info("the taught model %s is deleted", name)

    async def train(self, name: str, *, mirror: bool) -> tuple[Manifest, list[str]]:
        """Train a new version; see `Trainings.train`.

        Raises:
            ModelNotFound: there is no such model.
        """
        self.require(name)
        return await self._trainings.train(name, mirror=mirror)

    def package(self, name: str) -> tuple[str, Callable[[], bytes]]:
        """Return the serving package; see `TaughtPackages.serving`.

        Raises:
            ModelNotFound: there is no such model, or no version of it serves.
        """
        self.require(name)
        return self._packages.serving(name)

    def _as_taught(
        self, lesson: Lesson, features: Features
    ) -> tuple[tuple[Prediction, ...] | None, bool | None]:
        """Predictions of the serving version for a clip, from the view that requests are answered with."""
        served = next(iter(self._models.registry.versions(lesson.name).values()), None)
        if served is None or served.graph is not lesson.base or served.model.head is None:
            return None, None
        logits = served.model.head.evidence(features.array[:1]).mean(axis=1)
        best = predictions(served.model, logits, TOP_K)
        return best, is_unsure(served.model, best)

    async def _write(self, change: Callable[[], object]) -> None:
        """Make a change in a thread; wait for it even if the caller disconnects."""
        try:
            await in_thread(change)
        except OSError as exc:
            logger.error("the folder of taught models cannot be written", exc_info=exc)
            raise StorageFull(
                f"The folder of taught models cannot be written: {exc.strerror}; nothing is lost.", RETRY_S
            ) from exc


def _sha256(video: VideoFile) -> str:
    if isinstance(video, bytes):
        return hashlib.sha256(video).hexdigest()
    assert not isinstance(video, Path)
    return _file_digest(video)


def _file_digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any open file works

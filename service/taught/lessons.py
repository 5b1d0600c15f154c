"""Checks of a new example: its name, label and base, and the limits of the folder."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import BaseChanged, InvalidParameter, LabelConflict, NameTaken, TeachingFull
from service.packages.folders import NAME_PATTERN, NAME_RULE
from service.packages.manifest import BaseReference, Manifest
from service.pipeline.models.repository import ModelRepository
from service.pipeline.models.served_model import ServedHead, ServedModel
from service.taught.store import ExampleStore
from service.teaching.examples import TeachingError, check_labels

MAX_TEXT = 128


@dataclass(frozen=True)
class TeachLimits:
    """Limits of a folder of taught models."""

    max_examples: int
    max_bytes: int
    max_models: int


@dataclass(frozen=True)
class Lesson:
    """The model, label, group and base of a new example."""

    name: str
    label: str
    group: str | None
    base: ServedModel


class Lessons:
    """Checks new examples of the models of one folder.

    Args:
        store: the stored examples.
        models: the bases and the taught models.
        limits: limits of the folder.
    """

    def __init__(self, store: ExampleStore, models: ModelRepository, limits: TeachLimits) -> None:
        self._store = store
        self._models = models
        self._limits = limits

    def names(self) -> set[str]:
        """Models that have examples or a package."""
        return self._store.names() | self._models.listing.taught_names()

    def lesson(self, name: str, label: str, group: str | None, base: str | None) -> Lesson:
        """Check a new example before its clip is received.

        Args:
            name: the taught model, which may be new.
            label: label of the clip; spaces around it are removed.
            group: clips of a group are never split by the cross-validation.
            base: name of the base; by default the base of the other examples, or the default model.

        Raises:
            InvalidParameter: a value is not valid, or the model cannot be a base.
            NameTaken, LabelConflict, TeachingFull, ModelNotFound, BaseChanged: the class says why.
        """
        label = _text("label", label)
        group = None if group is None else _text("group", group)
        if not NAME_PATTERN.fullmatch(name):
            raise InvalidParameter(f"The name of a model must be {NAME_RULE}.")
        if self._models.listing.is_provided(name):
            raise NameTaken(f"{name} is a model of the models folder; choose another name.")
        self.check_label(name, label)
        served = self._base(name, base)
        if served.manifest.name == name:
            raise NameTaken(f"{name} is the base; choose another name for the taught model.")
        self.check_limits(name)
        return Lesson(name, label, group, served)

    def loaded_base(self, name: str, reference: BaseReference) -> ServedModel:
        """The base of the examples of `name`; raises `BaseChanged` if it is not loaded."""
        served = self._models.registry.loaded_base(reference)
        if served is None:
            raise BaseChanged(
                f"The examples of {name} are features of {reference}, which is not loaded; load it, or delete"
                f" {name} and add its clips again."
            )
        return served

    def check_label(self, name: str, label: str) -> None:
        """Raise `LabelConflict` if `name` has a label that differs only by case or spaces."""
        try:
            check_labels([*self._store.label_counts(name), label])
        except TeachingError as exc:
            raise LabelConflict(f"{exc.message[0].upper()}{exc.message[1:]}.") from exc

    def check_base(self, name: str, reference: BaseReference) -> None:
        """Raise `BaseChanged` if the base of the examples of `name` is not `reference`."""
        known = self._store.base(name)
        if known is not None and known != reference:
            raise BaseChanged(
                f"The examples of {name} are features of {known} (SHA-256 {known.sha256[:12]}...), not of"
                f" {reference} (SHA-256 {reference.sha256[:12]}...); delete {name} to change its base."
            )

    def check_limits(self, name: str) -> None:
        """Raise `TeachingFull` if there is no room for another example of `name`."""
        limits, names = self._limits, self.names()
        if name not in names and len(names) >= limits.max_models:
            raise TeachingFull(f"There are {len(names)} taught models, the limit; delete one.")
        if len(self._store.examples(name)) >= limits.max_examples:
            raise TeachingFull(f"{name} has {limits.max_examples} examples, the limit; delete some.")
        if self._store.size_bytes >= limits.max_bytes:
            raise TeachingFull(f"The examples take {limits.max_bytes} bytes, the limit; delete some.")

    def _base(self, name: str, wanted: str | None) -> ServedModel:
        """Return the model that computes the features of a new example."""
        known = self._store.base(name)
        if wanted is None and known is not None:
            return self.loaded_base(name, known)
        registry = self._models.registry
        if wanted is None:
            usual = registry.get()
            served = next((one for one in (usual, *registry.ready()) if _can_be_base(one)), usual)
        else:
            served = registry.get(wanted)
        if isinstance(served, ServedHead):
            raise InvalidParameter(
                f"base: {served.manifest.name} is a taught model itself; its base is {served.manifest.base}."
            )
        assert isinstance(served, ServedModel)
        if served.model.feature_size is None:
            raise InvalidParameter(
                f"base: {served.manifest.name} returns no features; export it again, or name another base."
            )
        self.check_base(name, reference_of(served.manifest))
        return served


def reference_of(manifest: Manifest) -> BaseReference:
    """Return a reference to a model as a base."""
    return BaseReference(name=manifest.name, version=manifest.version, sha256=manifest.sha256)


def _can_be_base(served: object) -> bool:
    return isinstance(served, ServedModel) and served.model.feature_size is not None


def _text(name: str, value: str) -> str:
    """Return a label or group without spaces around it."""
    text = value.strip()
    if not 1 <= len(text) <= MAX_TEXT or not text.isprintable():
        raise InvalidParameter(f"{name} must have from 1 to {MAX_TEXT} printable characters.")
    return text

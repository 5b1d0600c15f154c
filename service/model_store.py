"""The model packages below one folder: find, verify, load, warm up, look up.

A package that cannot be trusted or does not run is refused, by name and reason, and the others serve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from service.errors import ModelNotFound, PackageError
from service.manifest import GRAPH_FILE, Manifest, read_manifest, verify_graph
from service.runtime.choice import Opened
from service.runtime.session import InferenceFailed, Session

OpenPackage = Callable[[Path, Manifest], Opened]

logger = logging.getLogger(__name__)


class ModelState(StrEnum):
    """What has become of a package."""

    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True)
class Package:
    """A folder `MODELS/NAME/VERSION`, not looked into yet."""

    name: str
    version: int
    folder: Path


@dataclass(frozen=True)
class Model:
    """A package that serves."""

    manifest: Manifest
    opened: Opened

    @property
    def session(self) -> Session:
        """Its graph, loaded."""
        return self.opened.session


@dataclass(frozen=True)
class ModelEntry:
    """A line of the listing; one that was refused has a `reason`, and neither `manifest` nor `opened`."""

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


class ModelStore:
    """The models that serve, one version of each name: the highest that is good.

    Args:
        root: folder of packages.
        open_package: loads a package and proves it; see `service.runtime.choice.open_package`.
        default: name of the model for requests that name none; the alphabetically first, if not given.
    """

    def __init__(self, root: Path, open_package: OpenPackage, default: str | None = None) -> None:
        self._root = root
        self._open_package = open_package
        self._default = default
        self._models: dict[str, Model] = {}
        self._refused: list[ModelEntry] = []

    def load(self) -> None:
        """Find and load the packages.

        Raises:
            PackageError: there is none, none is good, or the default one is not; one line with the reasons.
            ProviderUnavailable: the provider that was asked for cannot be had.
        """
        packages = find_packages(self._root)
        for _, versions in groupby(packages, key=lambda package: package.name):
            self._load_best(versions)
        if not self._models:
            reasons = "; ".join(f"{item.name}/{item.version}: {item.reason}" for item in self._refused)
            raise PackageError(f"{self._root}: no model package can be served: {reasons}")
        if self._default is not None and self._default not in self._models:
            raise PackageError(f"{self._root}: the default model {self._default!r} is not among those served")

    def get(self, name: str | None = None, version: int | None = None) -> Model:
        """The model of that name; the default one for None.

        Raises:
            ModelNotFound: no such model serves, or another version of it.
        """
        model = self._named(name)
        if version is not None and version != model.manifest.version:
            raise ModelNotFound(
                f"Version {version} of {model.manifest.name} does not serve; {model.manifest.version} does."
            )
        return model

    def _named(self, name: str | None) -> Model:
        if name is None:
            return self._models[self._default or min(self._models)]
        if name not in self._models:
            served = ", ".join(sorted(self._models))
            raise ModelNotFound(f"There is no model {name[:128]!r}; served are {served}.")
        return self._models[name]

    def models(self) -> tuple[Model, ...]:
        """All that serve, by name."""
        return tuple(self._models[name] for name in sorted(self._models))

    def entries(self) -> tuple[ModelEntry, ...]:
        """All that serve and all that were refused, by name, the higher version first."""
        ready = [
            ModelEntry(
                name=model.manifest.name,
                version=model.manifest.version,
                state=ModelState.READY,
                manifest=model.manifest,
                opened=model.opened,
            )
            for model in self.models()
        ]
        return tuple(sorted([*ready, *self._refused], key=lambda entry: (entry.name, -entry.version)))

    def close(self) -> None:
        """Close all sessions."""
        for model in self._models.values():
            model.session.close()
        self._models.clear()

    def _load_best(self, versions: Iterable[Package]) -> None:
        """Serve the first good one of a model's versions, the highest first."""
        for package in versions:
            try:
                model = load_package(package, self._open_package)
            except (PackageError, InferenceFailed) as exc:
                reason = exc.message.removeprefix(f"{package.folder}: ")
                logger.error("model %s/%d is refused: %s", package.name, package.version, reason)
                self._refused.append(
                    ModelEntry(package.name, package.version, ModelState.REFUSED, reason=reason)
                )
                continue
            self._models[package.name] = model
            logger.info("model %s/%d serves on %s", package.name, package.version, described(model.opened))
            return


def find_packages(root: Path) -> list[Package]:
    """Folders `root/NAME/VERSION`, by name, the highest version first.

    Raises:
        PackageError: `root` is no folder, or there is no package in it.
    """
    if not root.is_dir():
        raise PackageError(f"{root}: there is no such folder of model packages")
    packages = [
        Package(name.name, int(version.name), version)
        for name in root.iterdir()
        if name.is_dir() and not name.name.startswith(".")
        for version in name.iterdir()
        if version.is_dir() and _is_version(version.name)
    ]
    if not packages:
        raise PackageError(f"{root}: there is no model package in it (NAME/VERSION/{GRAPH_FILE})")
    return sorted(packages, key=lambda package: (package.name, -package.version))


def load_package(package: Package, open_package: OpenPackage) -> Model:
    """Read, verify, load and prove one package.

    Raises:
        PackageError: something is wrong with it; the message says what.
        InferenceFailed: its graph does not run.
        ProviderUnavailable: the provider cannot be had.
    """
    manifest = read_manifest(package.folder)
    if (manifest.name, manifest.version) != (package.name, package.version):
        raise PackageError(f"the manifest is that of {manifest.name}/{manifest.version}")
    verify_graph(manifest, package.folder)
    return Model(manifest, open_package(package.folder, manifest))


def described(opened: Opened) -> str:
    """What runs a model and why, in words."""
    reason = f"{opened.session.runtime}, {opened.chosen}"
    if not opened.measured_ms:
        return reason
    return f"{reason} ({', '.join(f'{name} {value:.3g} ms' for name, value in opened.measured_ms.items())})"


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")

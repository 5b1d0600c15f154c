"""Loading of model packages, and the choice of the versions to load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from service.engines.session import Session
from service.errors import PackageError
from service.models.engine_selection import Opened
from service.packages.folders import NAME_PATTERN, NAME_RULE, Package
from service.packages.manifest import (
    EVIDENCE,
    FEATURES,
    LOGITS,
    OUTPUTS,
    Manifest,
    read_manifest,
    verify_graph,
)
from service.teaching.head import Head

OpenPackage = Callable[[Path, Manifest], Opened]


@dataclass(frozen=True)
class Model:
    """A loaded package.

    Attributes:
        manifest: Manifest of the package.
        opened: Its graph, or the graph of its base if the package is taught.
        head: Classifies the features of the base; None if the package has its own graph.
    """

    manifest: Manifest
    opened: Opened
    head: Head | None = None

    @property
    def session(self) -> Session:
        """The loaded graph."""
        return self.opened.session

    @property
    def temperature(self) -> float:
        """Divisor of the logits from which scores are computed; 1 unless the head has a different one."""
        return 1.0 if self.head is None else self.head.temperature

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs: logits, evidence, and features if it has them."""
        declared = {output.name for output in self.session.outputs}
        return tuple(name for name in OUTPUTS if name in declared)

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of the outputs by name, without the batch axis; None for an axis of any length."""
        shapes = {out.name: out.shape[1:] for out in self.session.outputs}
        if self.head is not None:
            classes = len(self.manifest.labels)
            shapes |= {name: (*shapes[name][:-1], classes) for name in (LOGITS, EVIDENCE)}
        return {name: shapes[name] for name in self.output_names}

    @property
    def feature_size(self) -> int | None:
        """F of the output `features`; None if the graph lacks it and cannot be a base for taught models."""
        return next((out.shape[2] for out in self.session.outputs if out.name == FEATURES), None)


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions of a model to serve: the `most` highest valid ones of `only`, or of all if None."""

    most: int = 1
    only: frozenset[int] | None = None

    def candidates(self, packages: Iterable[Package]) -> list[Package]:
        """Return the packages that the policy allows, the highest version first."""
        allowed = [package for package in packages if self.only is None or package.version in self.only]
        return sorted(allowed, key=lambda package: -package.version)


NO_VERSION = VersionPolicy(most=0)
ALL_VERSIONS = sys.maxsize


def read_package(package: Package) -> Manifest:
    """Read the manifest of a package and compare it with the folder's name.

    Raises:
        PackageError: the manifest is invalid, or belongs to another package.
    """
    if not NAME_PATTERN.fullmatch(package.name):
        raise PackageError(f"the folder's name must be {NAME_RULE}")
    manifest = read_manifest(package.folder)
    if (manifest.name, manifest.version) != (package.name, package.version):
        raise PackageError(f"the manifest is that of {manifest.name}/{manifest.version}")
    return manifest


def load_package(package: Package, open_package: OpenPackage) -> Model:
    """Read, verify and load a package with its own graph; `service.models.taught` loads taught packages.

    Raises:
        PackageError: the package is invalid; the message says why.
        InferenceFailed: its graph does not run.
        ProviderUnavailable: the provider is not available.
    """
    manifest = read_package(package)
    if manifest.base is not None:
        raise PackageError(f"it is a taught package without a graph; its base is {manifest.base}")
    verify_graph(manifest, package.folder)
    return Model(manifest, open_package(package.folder, manifest))


def describe(opened: Opened) -> str:
    """Describe a model's engine, its selection and its speed, for logs and the command line."""
    text = f"{opened.session.runtime}, {opened.chosen}"
    if opened.measured_ms:
        measured = ", ".join(f"{name} {value:.3g} ms" for name, value in opened.measured_ms.items())
        text = f"{text} ({measured})"
    if opened.batches is not None:
        timed = zip(opened.batches.sizes, opened.batches.seconds, strict=True)
        return f"{text}; batches of {', '.join(f'{size} take {took * 1e3:.3g} ms' for size, took in timed)}"
    if opened.concurrent is None:
        return text
    profile = opened.concurrent.profile
    return (
        f"{text}; a single clip takes {profile.latency_s * 1e3:.3g} ms, {profile.concurrency} concurrent ones"
        f" {profile.concurrent_latency_s * 1e3:.3g} ms"
    )

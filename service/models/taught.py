"""Loading of taught packages: finding their base and checking the head against it.

A base is identified by name, version and checksum. It is in the same folder of packages, or bundled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from service.errors import PackageError
from service.models.loading import Model, read_package
from service.packages.folders import Package, bundled_models, scan_packages
from service.packages.manifest import EVIDENCE, BaseReference, Manifest, verify_graph
from service.packages.taught import read_head


def find_base(reference: BaseReference, packages: Iterable[Package]) -> tuple[Package, Manifest]:
    """Return the package that a taught package names as its base, and the base's manifest.

    Args:
        reference: name, version and checksum.
        packages: packages of the same folder; the bundled ones are searched after them.

    Raises:
        PackageError: the base is missing, invalid or a different one; the message names it.
    """
    others: list[str] = []
    for package in (*packages, *_bundled()):
        if (package.name, package.version) != (reference.name, reference.version):
            continue
        try:
            manifest = read_package(package)
        except PackageError as exc:
            others.append(
                f"its base {reference} is refused: {exc.message.removeprefix(f'{package.folder}: ')}"
            )
            continue
        if manifest.base is not None:
            others.append(f"its base {reference} is a taught model itself")
        elif manifest.sha256 == reference.sha256:
            return package, manifest
        else:
            others.append(
                f"its base {reference} is another package by now: the SHA-256 of the graph is"
                f" {manifest.sha256[:12]}..., it was taught on {reference.sha256[:12]}..."
            )
    if others:
        raise PackageError(others[0])
    raise PackageError(
        f"its base {reference} is missing; add that package to the models folder, or teach it on another base"
    )


def load_taught(package: Package, manifest: Manifest, base: Model) -> Model:
    """Read and verify a taught package; the model shares the graph of `base`.

    Args:
        package: the package.
        manifest: its manifest, with `base`.
        base: the loaded model that `manifest.base` names.

    Raises:
        PackageError: the head is invalid or does not match the base.
    """
    if base.feature_size is None:
        raise PackageError(f"its base {manifest.base} has no output `features`; export it again to get one")
    if manifest.clip != base.manifest.clip:
        raise PackageError(f"frames, sampling or inputs are not those of its base {manifest.base}")
    verify_graph(manifest, package.folder)
    head = read_head(package.folder, manifest)
    if head.feature_size != base.feature_size:
        raise PackageError(
            f"its head reads {head.feature_size} features, its base {manifest.base} has {base.feature_size}"
        )
    moments = base.output_shapes[EVIDENCE][0]
    if moments is not None and moments % head.segments:
        raise PackageError(
            f"its head has {head.segments} segments, which do not divide the {moments} moments of its base"
        )
    return Model(manifest, base.opened, head)


def _bundled() -> Iterator[Package]:
    with suppress(PackageError):  # a distribution may omit the bundled models
        yield from scan_packages(bundled_models()).packages

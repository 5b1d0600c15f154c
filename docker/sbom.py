"""The software bill of materials of an environment, and the notices of its third-party parts.

    python docker/sbom.py ENVIRONMENT/lib/python3.11/site-packages OUT

OUT/sbom.cdx.json (CycloneDX 1.6) lists every Python package, and every shared library that a wheel brings
along in a folder `*.libs`, which package metadata does not mention. OUT/THIRD_PARTY_NOTICES.txt has their
licences, with the texts that the wheels contain. docker/licences.json names the projects and licences of the
shared libraries. Needs cyclonedx-python-lib.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

LICENCES = Path(__file__).with_name("licences.json")
# The name of a library, between the folder and the digest that auditwheel adds: libx264-d6533a8d.so.165.
LIBRARY = re.compile(r"[^/]+\.libs/(?P<name>.+?)(?:-[0-9a-f]{8})*\.so(?:\.(?P<version>[0-9.]+))?$")
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)


class SharedLibrary(NamedTuple):
    """A library that a wheel brings along."""

    path: Path
    project: str
    version: str
    licence: str
    url: str


class UnknownLibrary(Exception):
    """A library whose licence is not in docker/licences.json."""


def shared_libraries(distribution: Distribution) -> Iterator[SharedLibrary]:
    """The libraries in the `*.libs` folder of a wheel.

    Raises:
        UnknownLibrary: the licence of a library is not known.
    """
    known = json.loads(LICENCES.read_text())
    for file in distribution.files or ():
        if (match := LIBRARY.search(file.as_posix())) is None:
            continue
        # Digests may follow each other, and some names end in a hyphen.
        name = match["name"].rstrip("-")
        if name not in known:
            raise UnknownLibrary(f"{file}: add the project and licence of {name} to {LICENCES.name}")
        project, licence, url = known[name]
        yield SharedLibrary(Path(str(file.locate())), project, match["version"] or "", licence, url)


def bill_of_materials(installed: list[Distribution]) -> Bom:
    """The packages and their shared libraries."""
    bom = Bom()
    for distribution in installed:
        package = _package(distribution)
        libraries = [_library(library) for library in shared_libraries(distribution)]
        for component in (package, *libraries):
            bom.components.add(component)
        bom.register_dependency(package, libraries)
    return bom


def notices(installed: list[Distribution]) -> str:
    """Name, version and licence of every part, and the licence texts that are installed with it."""
    parts = []
    for distribution in installed:
        lines = [f"{distribution.name} {distribution.version}: {_licence(distribution)}"]
        lines += [
            f"  contains {library.path.name} ({library.project}): {library.licence}, {library.url}"
            for library in shared_libraries(distribution)
        ]
        for file in distribution.files or ():
            if ".dist-info/" in file.as_posix() and LICENCE_FILE.search(file.name):
                lines.append(f"\n--- {file.name} ---\n{file.read_text(encoding='utf-8').strip()}")
        parts.append("\n".join(lines))
    return f"\n\n{'=' * 100}\n\n".join(parts) + "\n"


def _package(distribution: Distribution) -> Component:
    licence = _licence(distribution)
    return Component(
        type=ComponentType.LIBRARY,
        name=distribution.name,
        version=distribution.version,
        purl=PackageURL("pypi", name=distribution.name.lower(), version=distribution.version),
        bom_ref=f"pypi:{distribution.name}",
        licenses=[LicenseFactory().make_from_string(licence)],
    )


def _library(library: SharedLibrary) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=library.path.name,
        version=library.version,
        group=library.project,
        bom_ref=f"library:{library.path.parent.name}/{library.path.name}",
        licenses=[LicenseFactory().make_from_string(library.licence)],
        hashes=[
            HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(library.path.read_bytes()).hexdigest())
        ],
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(library.url))],
    )


def _licence(distribution: Distribution) -> str:
    """Return the licence expression, or the licence field or classifiers of older metadata."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if "License" in line
    ]
    text = str(metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) < 60:
        return text
    return ", ".join(classifiers) or "see the package"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path, help="the folder site-packages")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    installed = sorted(distributions(path=[str(arguments.packages)]), key=lambda item: item.name.lower())
    try:
        bom, text = bill_of_materials(installed), notices(installed)
    except UnknownLibrary as exc:
        sys.exit(str(exc))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "sbom.cdx.json").write_text(JsonV1Dot6(bom).output_as_string(indent=1), encoding="utf-8")
    (arguments.out / "THIRD_PARTY_NOTICES.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

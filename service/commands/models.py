"""`blvnet models`: list and verify model packages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Column, Table
from rich.text import Text

from service.commands.options import print_table
from service.engines.providers import EngineConfig
from service.engines.session import InferenceFailed
from service.errors import PackageError
from service.http.schemas.models import RuntimeInfo
from service.machine.resources import usable_cores
from service.models.engine_selection import open_package
from service.models.loading import Model, describe, load_package, read_package
from service.models.taught import find_base, load_taught
from service.packages.folders import Package, scan_packages
from service.packages.manifest import BaseReference, inputs_to_json
from service.settings import load_settings


def models(
    folder: Annotated[
        Path | None,
        typer.Option("--models", metavar="DIR", help="Folder of packages. Default: the bundled models."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List model packages, verify them like a server, and show the engine that would run them.

    Checks each manifest, the checksum, inputs and outputs of each graph, and its outputs on the package's
    reference clips. BLVNET_PROVIDER selects the provider.

    Example: blvnet models --models models
    """
    settings = load_settings({"models": folder})
    runtime = settings.engine_config(usable_cores())
    scan = scan_packages(settings.models)
    with ExitStack() as stack:
        verifier = _Verifier(scan.packages, runtime, stack)
        entries = [verifier.row(package) for package in scan.packages]
    entries += [
        {"name": name, "version": None, "state": "refused", "reason": reason}
        for name, reason in scan.unreadable.items()
    ]
    if as_json:
        typer.echo(json.dumps({"models": entries}, indent=2, ensure_ascii=False))
    else:
        _print_table(entries)
    if any(entry["state"] != "ready" for entry in entries):
        raise typer.Exit(1)


class _Verifier:
    """Loads packages sequentially. The bases of taught packages stay loaded until `stack` is closed."""

    def __init__(self, packages: Sequence[Package], runtime: EngineConfig, stack: ExitStack) -> None:
        self._packages = packages
        self._open = partial(open_package, config=runtime)
        self._stack = stack
        self._bases: dict[BaseReference, Model] = {}

    def row(self, package: Package) -> dict[str, Any]:
        """The table row of one package; `reason` is None for a good one."""
        entry: dict[str, Any] = {
            "name": package.name,
            "version": package.version,
            "state": "ready",
            "reason": None,
        }
        try:
            manifest = read_package(package)
            if manifest.base is None:
                model = load_package(package, self._open)
                model.opened.close()
            else:
                model = load_taught(package, manifest, self._base(manifest.base))
        except (PackageError, InferenceFailed) as exc:
            reason = exc.message.removeprefix(f"{package.folder}: ")
            return entry | {"state": "refused", "reason": reason}
        return entry | {
            "architecture": manifest.architecture,
            "precision": manifest.precision,
            "frames": manifest.clip.frames,
            "inputs": inputs_to_json(manifest.clip),
            "labels": len(manifest.labels),
            "sha256": manifest.sha256,
            "base": None if manifest.base is None else manifest.base.model_dump(),
            "provider": model.session.runtime.provider,
            "runtime": RuntimeInfo.of(model.opened).model_dump(),
            "runs_on": describe(model.opened) if manifest.base is None else f"its base {manifest.base}",
        }

    def _base(self, reference: BaseReference) -> Model:
        if reference not in self._bases:
            package, _ = find_base(reference, self._packages)
            try:
                base = load_package(package, self._open)
            except PackageError as exc:
                reason = exc.message.removeprefix(f"{package.folder}: ")
                raise PackageError(f"its base {reference} is refused: {reason}") from exc
            self._stack.callback(base.opened.close)
            self._bases[reference] = base
        return self._bases[reference]


def _print_table(entries: list[dict[str, Any]]) -> None:
    """A table that fits 80 columns, and a line for each package: what runs it, or why it is refused."""
    columns = ["name", "version", "architecture", "precision", "labels", "state"]
    table = Table(
        *(Column(heading, overflow="fold") for heading in columns), box=box.SIMPLE_HEAD, pad_edge=False
    )
    for entry in entries:
        cells = [Text(str(entry.get(column) or "")) for column in columns]
        cells[columns.index("state")].stylize("green" if entry["state"] == "ready" else "red")
        table.add_row(*cells)
    print_table(table)
    for entry in entries:
        package = "/".join(str(entry[key]) for key in ("name", "version") if entry[key] is not None)
        typer.echo(f"{package}: {entry.get('runs_on') or entry.get('reason')}")

"""`blvnet models`: are these packages good?"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service.errors import PackageError
from service.http.schemas import Runtime
from service.manifest import inputs_to_json
from service.packages import Package, described, find_packages, load_package
from service.pipeline.cores import usable_cores
from service.runtime.choice import open_package
from service.runtime.config import RuntimeConfig
from service.runtime.session import InferenceFailed
from service.settings import load_settings


def models(
    folder: Annotated[
        Path | None,
        typer.Option("--models", metavar="DIR", help="Folder of packages; if not given, the bundled ones."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List model packages, verify them as a server does, and say what would run them here.

    Verified are the manifest, the checksum of each graph, its inputs and outputs, and its answer to clips
    that the package has PyTorch's answer to. BLVNET_PROVIDER says what to run them on.
    """
    settings = load_settings({"models": folder})
    runtime = settings.core_config().runtime(usable_cores())
    entries = [_verify(package, runtime) for package in find_packages(settings.models)]
    if as_json:
        typer.echo(json.dumps({"models": entries}, indent=2, ensure_ascii=False))
    else:
        _print_table(entries)
    if any(entry["state"] != "ready" for entry in entries):
        raise typer.Exit(1)


def _verify(package: Package, runtime: RuntimeConfig) -> dict[str, Any]:
    """One package as it is printed; `reason` says what is wrong with it."""
    entry: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "state": "ready",
        "reason": None,
    }
    try:
        model = load_package(package, partial(open_package, config=runtime))
    except (PackageError, InferenceFailed) as exc:
        reason = exc.message.removeprefix(f"{package.folder}: ")
        return entry | {"state": "refused", "reason": reason}
    model.session.close()
    manifest = model.manifest
    return entry | {
        "architecture": manifest.architecture,
        "precision": manifest.precision,
        "frames": manifest.clip.frames,
        "inputs": inputs_to_json(manifest.clip),
        "labels": len(manifest.labels),
        "sha256": manifest.sha256,
        "provider": model.session.runtime.provider,
        "runtime": Runtime.of(model.opened).model_dump(),
        "runs_on": described(model.opened),
    }


def _print_table(entries: list[dict[str, Any]]) -> None:
    columns = ["name", "version", "architecture", "precision", "labels", "state", "runs_on"]
    if any(entry["reason"] for entry in entries):
        columns.append("reason")
    headings = [column.replace("_", " ") for column in columns]
    table = Table(*(Column(heading, overflow="fold") for heading in headings), box=box.SIMPLE_HEAD)
    for entry in entries:
        cells = [Text(str(entry.get(column) or "")) for column in columns]
        cells[columns.index("state")].stylize("green" if entry["state"] == "ready" else "red")
        table.add_row(*cells)
    Console().print(table)

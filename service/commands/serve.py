"""`blvnet serve`: the service as a process. Its options are the settings, each by its own name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.settings import Settings, load_settings


def serve(**options: str | None) -> None:
    """Serve the models over HTTP until SIGTERM or Ctrl-C.

    Every option can also be set as an environment variable: --max-batch as BLVNET_MAX_BATCH. The option wins.
    """
    settings = load_settings(options)  # a wrong one is told before the slow imports
    from service.server import run

    run(settings)


def _parameters() -> Iterator[inspect.Parameter]:
    """An option for every setting; values are checked by the settings alone, so they stay text here."""
    for name, field in Settings.model_fields.items():
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            metavar=_metavar(field),
            help=_help(field),
            show_default=False,
        )
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
        )


def _metavar(field: FieldInfo) -> str:
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    if kind is Path:
        return "DIR"
    return "NUMBER" if kind in (int, float, int | None) else "TEXT"


def _help(field: FieldInfo) -> str:
    default: Any = field.default
    shown = "" if default in (None, (), PydanticUndefined) else f" Default: {default}."
    return f"{field.description}{shown}"


serve.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]

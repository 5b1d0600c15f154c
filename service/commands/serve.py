"""`blvnet serve`: run the HTTP service. Its options are the settings."""

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

# The first setting of each group in the help, in the order of the settings.
GROUPS = {
    "models": "Models",
    "provider": "Inference",
    "queue_limit": "Queue and time limits",
    "decode_workers": "Decoding",
    "host": "Network and keys",
    "max_upload_mb": "Uploads and shutdown",
    "log_format": "Logging",
}


def serve(**options: str | None) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C.

    Every option can also be set as an environment variable: --max-batch as BLVNET_MAX_BATCH. The option wins.

    Example: blvnet serve --models models --port 9000
    """
    settings = load_settings(options)  # reports invalid settings before the slow imports
    from service.server import run

    run(settings)


def _parameters() -> Iterator[inspect.Parameter]:
    """One option for each setting. Values stay text here because the settings validate them."""
    group = None
    for name, field in Settings.model_fields.items():
        group = GROUPS.get(name, group)
        default = "" if field.default in (None, (), PydanticUndefined) else f" Default: {field.default}."
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            metavar=_metavar(field),
            help=f"{field.description}{default}",
            show_default=False,
            rich_help_panel=group,
        )
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
        )


def _metavar(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    if kind in (Path, Path | None):
        return "PATH"
    return "NUMBER" if kind in (int, float, int | None) else "TEXT"


serve.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]

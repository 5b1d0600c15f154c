"""Options of `blvnet train` from a YAML file or a recipe; options of the command line replace them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
import yaml

from service.errors import BlvnetError
from service.packages.files import atomic_write

CONFIG_FILE = "config.yaml"
# These choose what to do with the other options, and are not options of a run.
NOT_IN_FILES = frozenset({"config", "resume", "help"})
UNSET = frozenset({"", "null", "~"})

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # As in the authors' README and opts.py; docs/training.md lists what differs.
    "paper": {
        "epochs": 50,
        "batch_size": 64,
        "lr": 0.01,
        "warmup_epochs": 0,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "decay": "all",
        "clip_norm": 0,
        "amp": "off",
        "tam_init": "paper",
        "cached": False,
        "offsets": "segment",
        "crop": "multi-scale",
        "augmentation": False,
        "mirror": 0.5,
    },
    # For a few hundred videos and the weights of a trained network; chosen by holding out groups.
    "fine-tune": {
        "epochs": 40,
        "batch_size": 16,
        "lr": 0.03,
        "warmup_epochs": 2,
        "label_smoothing": 0.1,
        "dropout": 0.4,
        "zoom": 0.3,
        "shift": 0.15,
        "amp": "off",
    },
}


def use_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Callback of `--config`: the file's values become the defaults of the options."""
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **read_config(path, ctx)}
    return path


def use_recipe(ctx: typer.Context, name: str | None) -> str | None:
    """Callback of `--recipe`: its values become the defaults of options that the file does not give."""
    if name is not None:
        if name not in RECIPES:
            raise typer.BadParameter(f"unknown recipe {name!r}; there is {', '.join(RECIPES)}")
        ctx.default_map = {**RECIPES[name], **(ctx.default_map or {})}
    return name


def read_config(path: Path, ctx: typer.Context) -> dict[str, Any]:
    """Read options from a YAML file: text, or lists of text, which are converted as on the command line.

    Raises:
        typer.BadParameter: the file is not a mapping of options of the command to values.
    """
    try:
        # The base loader leaves `off` and `1e-4` as they are.
        document = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - no objects
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{path} cannot be read ({exc})") from exc
    except yaml.YAMLError as exc:
        raise typer.BadParameter(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{path} must have lines such as 'epochs: 50'")
    known = {item.name: item for item in ctx.command.params if item.name not in NOT_IN_FILES}
    values = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        if name not in known:
            close = get_close_matches(name, [other for other in known if other], n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise typer.BadParameter(f"{path} has the unknown option {key!r}{guess}")
        several = getattr(known[name], "multiple", False)
        if not isinstance(value, list if several else str):
            raise typer.BadParameter(f"{path}: {key} must be {'a list' if several else 'a single value'}")
        if value not in UNSET if isinstance(value, str) else True:
            values[name] = value
    return values


def write_config(run: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a run to `RUN/config.yaml`; those without a value are left out.

    Raises:
        BlvnetError: the file cannot be written.
    """
    given = {
        name: str(value) if isinstance(value, Path | str) else value
        for name, value in options.items()
        if value is not None and name not in NOT_IN_FILES
    }
    path = run / CONFIG_FILE
    try:
        with atomic_write(path) as file:
            file.write(yaml.safe_dump(given, sort_keys=False, allow_unicode=True).encode())
    except OSError as exc:
        raise BlvnetError(f"{path} cannot be written ({exc.strerror})") from exc

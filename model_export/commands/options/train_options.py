"""Command-line options made from the fields of `TrainConfig` and `Augmentation`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

import typer

from model_export.training.config import Augmentation, Option, TrainConfig, default_warmup_epochs, options_of

STRENGTHS = tuple(item.name for item in fields(Augmentation))
# The sizes of changes that are made with a probability.
SIZES: Mapping[str, tuple[str, ...]] = {"geometry": ("zoom", "shift"), "cutout": ("cutout_side",)}


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field of both classes to a command, which takes them as `**options`."""
    signature = inspect.signature(command, eval_str=True)
    own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (*_training_options(), *_strength_options())
    ]
    command.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]
    return command


def training_config(options: Mapping[str, Any], *, augmentation: bool) -> TrainConfig:
    """The configuration of a run.

    Args:
        options: values of the generated options by name; None stands for the default.
        augmentation: False to leave out every kind of augmentation that the options do not give. A kind that
            they give by its probability has the default sizes.

    Raises:
        BlvnetError: no run can use these values.
    """
    given = {name: value for name, value in options.items() if value is not None}
    strengths = {name: given.pop(name) for name in STRENGTHS if name in given}
    given.setdefault("warmup_epochs", default_warmup_epochs(given["epochs"]))
    given["lr_steps"] = tuple(given.get("lr_steps", ()))
    default = Augmentation()
    base = default if augmentation else Augmentation.none()
    if not augmentation:
        for probability, sizes in SIZES.items():
            if strengths.get(probability):
                base = replace(base, **{name: getattr(default, name) for name in sizes})
    return TrainConfig(**given, augmentation=replace(base, **strengths))


def config_options(config: TrainConfig) -> dict[str, Any]:
    """The values of the generated options for this configuration."""
    values = config.to_dict()
    strengths: dict[str, Any] = values.pop("augmentation")
    return values | strengths


def _training_options() -> list[tuple[str, Any, Any]]:
    made: list[tuple[str, Any, Any]] = []
    defaults = {item.name: item.default for item in fields(TrainConfig)}
    for name, (kind, option) in options_of(TrainConfig).items():
        default = defaults[name]
        if name == "lr_steps":
            kind, default = list[float] | None, None
        elif name == "warmup_epochs":
            kind, default = float | None, None
        made.append((name, default, Annotated[kind, _option(option, option.help, "Training")]))
    return made


def _strength_options() -> list[tuple[str, Any, Any]]:
    made: list[tuple[str, Any, Any]] = []
    defaults = {item.name: item.default for item in fields(Augmentation)}
    for name, (kind, option) in options_of(Augmentation).items():
        text = f"{option.help} By default {defaults[name]:g}."
        annotation: Any = Annotated[kind | None, _option(option, text, "Augmentation")]
        made.append((name, None, annotation))
    return made


def _option(option: Option, text: str, panel: str) -> Any:
    return typer.Option(help=text, min=option.low, max=option.high, rich_help_panel=panel)

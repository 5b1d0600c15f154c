"""The `blvnet` command: finds the command that is asked for, imports that one alone, and reports errors.

The commands of the service are listed here, those of training are found by name as entry points of the group
`blvnet.commands`. Either way a command is a plain function with typer annotations, and it is imported when it
is called: so serving never loads what training needs, and a command whose extra is not installed can say so.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from service.errors import BlvnetError

OWN_COMMANDS = {
    "serve": "service.commands.serve:serve",
    "classify": "service.commands.classify:classify",
    "timeline": "service.commands.timeline:timeline",
    "models": "service.commands.models:models",
    "bench": "service.commands.bench:bench",
}
ENTRY_POINT_GROUP = "blvnet.commands"
# What is missing when an extra is, by the name under which Python imports it.
EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "cv2", "matplotlib", "PIL"),
    "cpu": ("onnxruntime",),
    "openvino": ("openvino",),
}
BAD_USAGE = 2


class Failure(typer.TyperException):
    """What ends the process: one line, and the exit status."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Commands(typer.core.TyperGroup):
    """The commands of the service and of the installed extras, each imported when it is called."""

    @cached_property
    def targets(self) -> dict[str, str]:
        """Command name -> `module:function`."""
        found = sorted((item.name, item.value) for item in entry_points(group=ENTRY_POINT_GROUP))
        return OWN_COMMANDS | dict(found)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """All names, for the help."""
        return list(self.targets)

    def get_command(self, ctx: Any, cmd_name: str) -> typer.core.TyperCommand | None:  # noqa: ARG002
        """A stand-in with the command's name and one line of help, for listings."""
        if cmd_name not in self.targets:
            return None
        return typer.core.TyperCommand(name=cmd_name, help=summary(self.targets[cmd_name]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:  # noqa: ARG002
        """The command that `args` start with, imported."""
        name, *rest = args
        target = OWN_COMMANDS.get(name) or self.targets.get(
            name
        )  # own ones without a look at what is installed
        if target is None:
            raise Failure(f"there is no command {name!r}.{self._guess(name)} Try 'blvnet --help'.", BAD_USAGE)
        return name, _command(name, target), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its errors become one line, unless `--debug` asks for all of it."""
        try:
            return super().invoke(ctx)
        except (BlvnetError, ModuleNotFoundError) as exc:
            if ctx.params["debug"]:
                raise
            raise _failure(exc) from exc

    def _guess(self, name: str) -> str:
        close = get_close_matches(name, self.targets, n=1)
        return f" Did you mean {close[0]!r}?" if close else ""


COMMON: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(cls=Commands, no_args_is_help=True, **COMMON)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"blvnet-serve {version('blvnet-serve')}")
        raise typer.Exit


@app.callback()
def blvnet(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """What is happening in this clip? Serve, try, train and export action recognition with bLVNet-TAM."""


def main() -> None:
    """The console script."""
    # Official builds of onnxruntime report to their maker as soon as they are imported, unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        status = app(prog_name="blvnet", standalone_mode=False)
    except typer.TyperException as exc:
        typer.echo(f"blvnet: {_one_line(exc)}", err=True)
        sys.exit(exc.exit_code)
    except typer.Abort:
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def summary(target: str) -> str:
    """First line of the docstring of `module:function`, read without running the module.

    Importing all commands to list them would take seconds, and fail where an extra is not installed.
    """
    module, _, function = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _command(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    function: Callable[..., None] = getattr(import_module(module), attribute)
    single = typer.Typer(**COMMON)
    single.command(name)(function)
    return typer.main.get_command(single)


def _failure(exc: BlvnetError | ModuleNotFoundError) -> Failure:
    if isinstance(exc, BlvnetError):
        return Failure(exc.message, getattr(exc, "exit_code", 1))
    missing = (exc.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if missing in modules:
            return Failure(f"{missing} is not installed; pip install 'blvnet-serve[{extra}]'", 1)
    raise exc


def _one_line(exc: typer.TyperException) -> str:
    message = " ".join(exc.format_message().split())
    context = getattr(exc, "ctx", None)
    if context is None:
        return message
    return f"{message.removesuffix('.')}. Try '{context.command_path} --help'."

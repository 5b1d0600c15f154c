"""The `blvnet` command line: imports only the requested command, and reports errors as one line.

The service's commands are listed here; training commands are entry points of the group `blvnet.commands`. A
command is a plain function with typer annotations, imported when it is called: serving never loads training
dependencies, and a command whose extra is missing can say so.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from service.commands import INTERRUPTED
from service.errors import BlvnetError

OWN_COMMANDS = {
    "serve": "service.commands.serve:serve",
    "classify": "service.commands.classify:classify",
    "timeline": "service.commands.timeline:timeline",
    "models": "service.commands.models:models",
    "batch": "service.commands.batch:batch",
    "doctor": "service.commands.doctor:doctor",
    "teach": "service.commands.teach:teach",
    "bench": "service.commands.bench:bench",
}
ENTRY_POINT_GROUP = "blvnet.commands"
# Import names of the packages that each extra installs.
EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "cv2", "matplotlib", "PIL", "pyarrow", "safetensors", "yaml"),
    "tensorboard": ("tensorboard",),
    "cpu": ("onnxruntime",),
    "openvino": ("openvino",),
    "batch": ("fsspec", "pyarrow", "s3fs"),
    "ray": ("ray",),
}
FAILED = 1
BAD_USAGE = 2
# The placeholder that typer shows for an option's value, such as `<int range>` or `<list[Path]>`. `WORDS` has
# the word that the help shows instead.
SHOWN_TYPE = re.compile(
    r"<(?:list\[)?(?:(?P<kind>int|float|str|path|Path|dir)(?: range)?|(?P<choices>[^\[\]<>]+))\]?>"
)
WORDS = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT", "path": "PATH", "Path": "PATH", "dir": "DIR"}


class Failure(typer.TyperException):
    """A one-line error message and the exit status."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CommandHelp(typer.core.TyperCommand):
    """A command with plain-text help that never truncates names and groups options by their help panel."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces of the usage line, with arguments as `CLIP...`."""
        return [re.sub(r"^\{(.+)\}", _upper, piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments and for each group of options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                default = "Arguments" if is_argument else "Options"
                title = getattr(parameter, "rich_help_panel", None) or default
                name, text = record
                name = name.partition(" ")[0].upper() if is_argument else SHOWN_TYPE.sub(_word, name)
                sections.setdefault(title, []).append((name, text))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _upper(found: re.Match[str]) -> str:
    return found[1].upper()


def _word(found: re.Match[str]) -> str:
    return found["choices"] or WORDS[found["kind"]]


class Commands(typer.core.TyperGroup):
    """Command group that imports each command when it is called."""

    @cached_property
    def targets(self) -> dict[str, str]:
        """Map each command name to `module:function`."""
        found = sorted((item.name, item.value) for item in entry_points(group=ENTRY_POINT_GROUP))
        return OWN_COMMANDS | dict(found)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help if there is nothing else to do."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(BAD_USAGE)
        remaining: list[str] = super().parse_args(ctx, args)
        return remaining

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Names of all commands, for the help."""
        return list(self.targets)

    def get_command(self, ctx: Any, cmd_name: str) -> typer.core.TyperCommand | None:  # noqa: ARG002
        """Return a placeholder with the name and the first help line, for listings."""
        if cmd_name not in self.targets:
            return None
        return typer.core.TyperCommand(name=cmd_name, help=summary(self.targets[cmd_name]))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands with their first help lines, untruncated."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(target)) for name, target in self.targets.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:  # noqa: ARG002
        """Import the command that `args` start with."""
        name, *rest = args
        # The service's own commands are found without listing the installed entry points.
        target = OWN_COMMANDS.get(name) or self.targets.get(name)
        if target is None:
            close = get_close_matches(name, self.targets, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise Failure(f"there is no command {name!r}.{guess} Try 'blvnet --help'.", BAD_USAGE)
        return name, load_command(name, target), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors become one line unless `--debug` is given."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                raise
            raise Failure("interrupted", INTERRUPTED) from None
        except (BlvnetError, ModuleNotFoundError, OSError) as exc:
            if ctx.params["debug"]:
                raise
            raise _failure(exc) from exc


COMMON: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(cls=Commands, **COMMON)


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
    """Video action recognition with bLVNet-TAM: serve, classify, train and export.

    Example: blvnet classify examples/clip.mp4
    """


def main() -> None:
    """The console script."""
    # Official builds of onnxruntime send telemetry when they are imported, unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Number of threads of numpy's linear algebra, read at import. The matrices are small, and threads that
    # wait for each other in loops take several times the processor time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names need not be valid UTF-8
    try:
        status = app(prog_name="blvnet", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except typer.TyperException as exc:
        _complain(_one_line(exc))
        status = exc.exit_code
    except typer.Abort:
        status = FAILED
    except BrokenPipeError:
        status = FAILED
        _discard_output()
    except OSError as exc:
        _complain(_failure(exc).message)
        status = FAILED
        _discard_output()
    if status == INTERRUPTED:
        # An engine may still be loading a model in a thread; its destructors would then abort the process.
        if sys.stdout is not None:
            with suppress(OSError):
                sys.stdout.flush()
        os._exit(status)
    sys.exit(status if isinstance(status, int) else 0)


def summary(target: str) -> str:
    """First docstring line of `module:function`, read from the source.

    Importing all commands for a listing would take seconds, and fail if an extra is missing.
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


def load_command(name: str, target: str) -> Any:
    """Import the command for `module:function`."""
    module, _, attribute = target.partition(":")
    function: Callable[..., None] = getattr(import_module(module), attribute)
    single = typer.Typer(add_completion=False, **COMMON)
    single.command(name, cls=CommandHelp)(function)
    return typer.main.get_command(single)


def _failure(exc: BlvnetError | ModuleNotFoundError | OSError) -> Failure:
    if isinstance(exc, BlvnetError):
        return Failure(exc.message, getattr(exc, "exit_code", FAILED))
    if isinstance(exc, FileNotFoundError) and exc.filename:
        folder = Path(os.fsdecode(exc.filename)).parent
        if not folder.exists():
            return Failure(f"{exc.filename}: there is no folder {folder}; make it first", FAILED)
    if isinstance(exc, OSError):
        where = f"{exc.filename}: " if exc.filename else "output cannot be written: "
        return Failure(f"{where}{exc.strerror or exc}", FAILED)
    missing = (exc.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if missing in modules:
            from service.installation import install_command

            return Failure(f"{missing} is not installed; run: {install_command(extra)}", FAILED)
    raise exc


def _one_line(exc: typer.TyperException) -> str:
    message = " ".join(exc.format_message().split())
    context = getattr(exc, "ctx", None)
    if context is None:
        return message
    return f"{message.removesuffix('.')}. Try '{context.command_path} --help'."


def _complain(message: str) -> None:
    try:
        typer.echo(f"blvnet: {message}", err=True)
    except OSError:  # standard error cannot be written to either; only the exit status reports the error
        _discard_output()


def _discard_output() -> None:
    """Let the interpreter exit without another attempt to write the buffered output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)

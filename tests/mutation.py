"""Mutation tests: changes single expressions of the service and counts how many changes the tests detect.

    python -m tests.mutation [PATH...] [--sample N]

For every module below the paths, cosmic-ray generates mutants and runs the tests that mirror the module, and
if these pass those of its package and of the routes. Mutants that no test detects are listed as diffs. The
work happens in a copy of the repository. Needs the `mutation` extra.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ROOT = Path(__file__).parents[1]
PATHS = (Path("service/pipeline"), Path("service/workers"), Path("service/http"), Path("service/clip"))
TIMEOUT_S = 900.0
HTTP_TESTS = Path("tests/service/http")
# Requests to a server in this process, which use all packages.
ROUTES = [
    f"{HTTP_TESTS}/routes/test_{name}.py" for name in ("classify", "health", "open_inference", "timeline")
]
# Fast tests of rules that apply to all packages.
RULES = [f"{HTTP_TESTS}/test_openapi.py", "tests/service/test_frozen_types.py"]
# Tests of a package in other folders.
ELSEWHERE = {
    Path("tests/service/http"): ["tests/service/taught/test_teaching.py", "tests/service/test_server.py"],
    Path("tests/service/pipeline"): ["tests/service/taught/test_teaching.py"],
}
# Tests of modules that no test is named after: files of tests, and the modules that they cover.
OTHER_NAMES = (
    (
        "service/pipeline/models",
        ("entry", "loader", "registry", "served_model", "starter"),
        ("pipeline/models/test_repository.py", "pipeline/models/test_taught_models.py"),
    ),
    (
        "service/workers",
        ("pool_worker", "supervisor"),
        ("workers/test_decode_pool.py", "workers/test_pool_states.py", "workers/test_worker_ends.py"),
    ),
    (
        "service/clip/decoding",
        ("packets", "planned", "sequential"),
        tuple(f"clip/decoding/test_{name}.py" for name in ("clips", "plan", "windows", "damage")),
    ),
    ("service/clip/bitstream", ("packet_info",), ("clip/decoding/test_plan.py",)),
    ("service/clip/bitstream/h264", ("pruner",), ("clip/decoding/test_pruning.py",)),
    ("service/http/routes", ("taught",), ("taught/test_teaching.py",)),
    ("service/http/schemas", ("taught",), ("taught/test_teaching.py",)),
)
# Mutants that change nothing: `X | None` in annotations is never evaluated, and what `is` compares (None,
# members of enums) has no equality of its own.
EQUIVALENT = (
    "core/ReplaceBinaryOperator_BitOr_%",
    "core/ReplaceComparisonOperator_Is_Eq",
    "core/ReplaceComparisonOperator_IsNot_NotEq",
)
# `zip(..., strict=True)` states that lengths are equal, so only a bug elsewhere could tell the difference.
ASSERTION, ASSERTION_OPERATOR = "strict=True", "core/ReplaceTrueWithFalse"
PYTEST = "-m pytest -x -q --no-header -p no:cacheprovider --timeout 60"


def main(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Modules or folders; default: pipeline, workers, http, clip.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Mutants per module, drawn at random.")] = 25,
) -> None:
    """Run mutation tests; the exit status is 1 if less than 90 % of the mutants are detected."""
    if shutil.which(cosmic_ray()) is None:
        raise typer.BadParameter("cosmic-ray is not installed: pip install -e '.[mutation]'")
    console = Console()
    detected = total = 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_repository(Path(scratch, "copy"))
        chosen = list(modules(paths or PATHS))
        for package in sorted({Path("tests", *module.parts[:2]) for module in chosen}):
            check_tests_pass(copy, [*tests_of_package(package), f"--ignore={HTTP_TESTS / 'page'}"])
        for module in chosen:
            killed, survivors = mutate(copy, module, sample)
            detected, total = detected + killed, total + killed + len(survivors)
            console.print(f"{module}: {killed} of {killed + len(survivors)}", highlight=False)
            for diff in survivors:
                console.print(diff, markup=False, highlight=False)
    share = detected / total if total else 1.0
    console.print(f"detected: {detected} of {total} ({share:.1%})", highlight=False)
    raise typer.Exit(0 if share >= 0.9 else 1)


def cosmic_ray() -> str:
    """The path of the cosmic-ray command of this environment."""
    return str(Path(sys.executable).with_name("cosmic-ray"))


def copy_repository(folder: Path) -> Path:
    """Copy all files that git tracks to a new folder."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def modules(paths: tuple[Path, ...] | list[Path]) -> Iterator[Path]:
    """Modules below the paths, relative to the repository."""
    for path in paths:
        found = [path] if path.suffix == ".py" else sorted((ROOT / path).rglob("*.py"))
        for module in found:
            if module.name != "__init__.py":
                yield (ROOT / module).relative_to(ROOT)


def tests_of(module: Path) -> list[list[str]]:
    """The tests of a module: its own, then those of its package and of the routes that use it.

    Most mutants are detected by the first group, which takes seconds. Tests in the browser are left out.
    """
    package = Path("tests", *module.parts[:2])
    mirror = Path("tests", module.parent)
    nearby = next(folder for folder in (mirror, *mirror.parents) if (ROOT / folder).exists())
    own = [f"{nearby}/test_{module.name}", f"{nearby}/test_{module.stem}_machine.py"]
    named = [path for path in own if (ROOT / path).exists()] or [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / package).rglob(f"test_{module.stem}*.py"))
        if path.parent.name != "page"
    ]
    named = named or [
        f"tests/service/{test}"
        for folder, covered, tests in OTHER_NAMES
        for test in tests
        if str(module.parent) == folder and module.stem in covered
    ]
    ignored = [f"--ignore={path}" for path in (*named, HTTP_TESTS / "page")]
    rest = [*tests_of_package(package), *ignored]
    return [named, rest] if named else [rest]


def tests_of_package(package: Path) -> list[str]:
    """The tests that cover a package, the fast ones first."""
    return [*RULES, *ROUTES, str(package), *ELSEWHERE.get(package, ())]


def pytest_command(copy: Path, tests: list[str]) -> str:
    """The shell command that runs tests of the copy."""
    return f"PYTHONPATH={copy} {sys.executable} {PYTEST} {' '.join(tests)}"


def check_tests_pass(copy: Path, tests: list[str]) -> None:
    """Run tests on the unchanged code: tests that fail would count as detected mutants."""
    done = subprocess.run(
        ["sh", "-c", pytest_command(copy, tests)], cwd=copy, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(tests)} fail without mutants: {done.stdout[-2000:]}{done.stderr}")


def mutate(copy: Path, module: Path, sample: int) -> tuple[int, list[str]]:
    """Test a sample of a module's mutants; return the number of detected ones and the diffs of the others."""
    config, session = copy / "mutation.toml", copy / "mutation.sqlite"
    session.unlink(missing_ok=True)
    stages = " && ".join(pytest_command(copy, tests) for tests in tests_of(module))
    test_command = f"sh -c {shlex.quote(stages)}"
    config.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(str(module))}\ntimeout = {TIMEOUT_S}\n"
        "excluded-modules = []\n"
        f"test-command = {json.dumps(test_command)}\n[cosmic-ray.distributor]\nname = 'local'\n"
    )
    run(copy, "init", str(config), str(session))
    lines = (copy / module).read_text(encoding="utf-8").splitlines()
    assertions = [number for number, line in enumerate(lines, start=1) if ASSERTION in line]
    with closing(sqlite3.connect(session)) as database, database:
        for line in assertions:
            database.execute(
                "DELETE FROM mutation_specs WHERE operator_name = ? AND start_pos_row = ?",
                (ASSERTION_OPERATOR, line),
            )
        where = " AND ".join(["operator_name NOT LIKE ?"] * len(EQUIVALENT))
        keep = f"SELECT job_id FROM mutation_specs WHERE {where} ORDER BY random() LIMIT ?"
        database.execute(f"CREATE TEMP TABLE kept AS {keep}", (*EQUIVALENT, sample))
        for table in ("mutation_specs", "work_items"):
            database.execute(f"DELETE FROM {table} WHERE job_id NOT IN (SELECT job_id FROM kept)")
    run(copy, "exec", str(config), str(session))
    with closing(sqlite3.connect(session)) as database:
        results = database.execute("SELECT test_outcome, diff FROM work_results").fetchall()
    survivors = [diff or "" for outcome, diff in results if str(outcome).lower().endswith("survived")]
    return len(results) - len(survivors), survivors


def run(folder: Path, *arguments: str) -> None:
    """Run cosmic-ray in a folder and fail with its output."""
    done = subprocess.run([cosmic_ray(), *arguments], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cosmic-ray {arguments[0]} failed: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    typer.run(main)

"""Checks the import layers and what fresh interpreters load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"torch", "cv2", "matplotlib", "onnx", "onnxscript", "model_export"}
RAY = {"service/ray_app.py", "service/batch/ray_rows.py"}
WEB = {"fastapi", "starlette", "uvicorn", "pydantic_settings", "typer"}
# The packages and modules directly below each of the two, from the lowest layer up: each may import those of
# the rows before it, and none of its own row or of those after it.
LAYERS = {
    "service": (
        {"errors", "health_check", "installation"},
        {"access", "background", "clip", "machine", "observer", "subprocesses", "teaching", "tracing"},
        {"packages"},
        {"engines", "jobs"},
        {"models", "workers"},
        {"pipeline"},
        {"bench", "offline", "settings", "taught"},
        {"checks", "monitoring"},
        {"http"},
        {"batch", "client", "server"},
        {"commands", "ray_app"},
        {"cli"},
    ),
    "blvnet_client": (
        {"results"},
        {"errors", "operations"},
        {"uploads"},
        {"exchange", "jobs", "retries"},
        {"client", "async_client"},
    ),
    "model_export": (
        {"metrics", "networks", "progress", "synthetic"},
        {"checkpoints", "datasets", "profile"},
        {"training", "export"},
        {"evaluation"},
        {"commands"},
    ),
}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_by(module: Path) -> set[str]:
    """Full names of everything that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in LAYERS:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def part_of(name: str) -> str:
    """The package or module right below the top-level package."""
    return name.split(".")[1]


@pytest.mark.parametrize("module", modules("service"), ids=lambda path: str(path.relative_to(ROOT)))
def test_service_does_not_import_training_code(module: Path) -> None:
    assert {name.partition(".")[0] for name in imported_by(module)} & TRAINING == set()


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down_the_layers(package: str) -> None:
    layer = {name: number for number, names in enumerate(LAYERS[package]) for name in names}
    upward = set()
    for module in modules(package):
        own = module.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for other in imported_by(module):
            inside = other.startswith(f"{package}.") and own != f"{package}.__init__"
            if inside and part_of(own) != part_of(other) and layer[part_of(other)] >= layer[part_of(own)]:
                upward.add((own, other))
    assert upward == set()


def test_client_needs_neither_the_service_nor_its_dependencies() -> None:
    of_service = {name for module in modules("blvnet_client") for name in imported_by(module)}
    assert {name.partition(".")[0] for name in of_service} & {"service", "model_export"} == set()
    assert (
        loaded_by("import blvnet_client") & {*WEB, *TRAINING, "service", "av", "numpy", "pydantic"} == set()
    )


def test_only_ray_modules_import_ray() -> None:
    importers = {
        str(module.relative_to(ROOT))
        for module in modules("service")
        if {name for name in imported_by(module) if re.match(r"ray\b|service\.ray_", name)}
    }
    assert importers == RAY


def test_ray_application_loads_no_training_code() -> None:
    loaded = loaded_by("import service.ray_app")
    assert {"ray", "fastapi"} <= loaded
    assert loaded & TRAINING == set()


@pytest.mark.parametrize("module", modules("model_export"), ids=lambda path: str(path.relative_to(ROOT)))
def test_training_imports_only_shared_service_packages(module: Path) -> None:
    shared: tuple[str, ...] = ("service.clip", "service.errors", "service.installation", "service.packages")
    if module.name == "serving_check.py":  # export loads the package as the service does
        shared += ("service.engines", "service.models")
    of_service = {name for name in imported_by(module) if name.partition(".")[0] == "service"}
    assert [name for name in of_service if not name.startswith(shared)] == []


def test_serving_process_loads_no_training_code(tiny_models: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from service import cli, server
from service.commands.serve import serve
from service.http.app import create_app
from service.settings import load_settings

async def start() -> None:
    app = create_app(load_settings({{"models": {str(tiny_models)!r}, "decode_workers": "1"}}))
    async with app.router.lifespan_context(app):
        await app.state.service.started()

if __name__ == "__main__":
    asyncio.run(start())
"""
    loaded = loaded_by(code)
    assert {"fastapi", "onnxruntime"} <= loaded  # it started
    assert loaded & TRAINING == set()
    assert "openvino" not in loaded  # the tiny model has no reference, so engines are not compared
    assert "ray" not in loaded
    assert "av" not in loaded  # only workers, which hold no keys, parse videos


def test_openvino_telemetry_is_disabled() -> None:
    loaded = loaded_by("import service.engines.openvino_session")
    assert "openvino" in loaded
    assert "ssl" not in loaded  # the module that could report


@pytest.mark.parametrize("module", ["service.clip.decoding.clips", "service.workers.decode_worker"])
def test_decoding_loads_no_web_framework_and_no_pydantic(module: str) -> None:
    assert loaded_by(f"import {module}") & {*WEB, "pydantic"} == set()


def test_core_loads_no_web_framework() -> None:
    assert loaded_by("import service.pipeline.recognizer") & WEB == set()


def test_command_lookup_loads_neither_settings_nor_numpy() -> None:
    assert loaded_by("import service.cli") & {"pydantic", "numpy", "av", "fastapi", "rich"} == set()

"""What may load what, seen in clean interpreters: serving needs no torch, a decode worker no web server."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"torch", "cv2", "matplotlib", "onnx", "onnxscript", "PIL", "model_export"}
RAY = {"service/ray_app.py", "service/ray_metrics.py"}
WEB = {"fastapi", "starlette", "uvicorn", "pydantic", "typer"}
# The rooms of `service`, from the ground up.
STOREYS = (
    {"errors"},
    {"clip", "contenders", "keys", "observer"},
    {"manifest"},
    {"runtime"},
    {"packages", "workers"},
    {"pipeline"},
    {"bench", "metrics", "offline", "settings"},
    {"logs"},
    {"http"},
    {"client", "ray_metrics", "server"},
    {"commands", "ray_app"},
    {"cli"},
)


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
        elif isinstance(node, ast.ImportFrom) and node.module == "service":
            names |= {f"service.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(name: str) -> str:
    """What is right below `service`: a folder, or a module that is alone."""
    return name.split(".")[1]


@pytest.mark.parametrize("module", modules("service"), ids=lambda path: str(path.relative_to(ROOT)))
def test_service_imports_nothing_of_training(module: Path) -> None:
    assert {name.partition(".")[0] for name in imported_by(module)} & TRAINING == set()


def test_every_room_of_the_service_stands_on_those_below_it() -> None:
    storey = {name: number for number, names in enumerate(STOREYS) for name in names}
    climbing = set()
    for module in modules("service"):
        own = module.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for other in imported_by(module):
            if other.startswith("service.") and own != "service.__init__" and room(own) != room(other):
                climbing |= {(own, other)} if storey[room(other)] >= storey[room(own)] else set()
    assert climbing == set()


def test_ray_is_imported_by_what_is_for_it_alone() -> None:
    importers = {
        str(module.relative_to(ROOT))
        for module in modules("service")
        if {name for name in imported_by(module) if re.match(r"ray\b|service\.ray_", name)}
    }
    assert importers == RAY


def test_application_of_ray_loads_nothing_of_training() -> None:
    loaded = loaded_by("import service.ray_app")
    assert {"ray", "fastapi"} <= loaded
    assert loaded & TRAINING == set()


@pytest.mark.parametrize("module", modules("model_export"), ids=lambda path: str(path.relative_to(ROOT)))
def test_training_shares_only_the_clip_code_and_the_leaves(module: Path) -> None:
    shared = ("service.clip", "service.errors", "service.manifest")
    of_service = {name for name in imported_by(module) if name.partition(".")[0] == "service"}
    assert [name for name in of_service if not name.startswith(shared)] == []


def test_serving_process_loads_nothing_of_training(tiny_models: Path) -> None:
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
    assert {"fastapi", "onnxruntime"} <= loaded  # it did start
    assert loaded & TRAINING == set()
    assert "openvino" not in loaded  # the tiny model has no reference, so there is nothing to compare
    assert "ray" not in loaded
    assert "av" not in loaded  # what reads hostile bytes is in the workers, not in the process with the keys


def test_openvino_reports_nothing_to_its_maker() -> None:
    loaded = loaded_by("import service.runtime.openvino_session")
    assert "openvino" in loaded
    assert "ssl" not in loaded  # nothing that could


@pytest.mark.parametrize(
    "module", ["service.clip.decode", "service.workers.decode_worker", "service.pipeline.recognizer"]
)
def test_core_loads_no_web_framework(module: str) -> None:
    assert loaded_by(f"import {module}") & WEB == set()


def test_finding_a_command_loads_neither_settings_nor_numbers() -> None:
    assert loaded_by("import service.cli") & {"pydantic", "numpy", "av", "fastapi", "rich"} == set()

"""schemathesis generates requests from the OpenAPI description and checks the answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.server import running_server
from tests.support.tiny_models import write_package

CONFIG = Path(__file__).with_name("schemathesis.toml")  # includes the keys and the models


def test_service_conforms_to_its_openapi_description(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("tiny", "spare"):
        write_package(models, name)
    with running_server(models, API_KEYS="key", ADMIN_KEY="admin", TEACH_DIR=tmp_path / "taught") as server:
        tried = schemathesis(f"{server.url}/openapi.json", tmp_path)
        assert tried.returncode == 0, tried.stdout
        assert server.metric("blvnet_requests_total", route="/v1/classify", code="422") > 0
        assert server.metric("blvnet_requests_total", route="/v1/timeline", code="422") > 0
        assert server.metric("blvnet_requests_total", route="/v2/models/{name}/infer", code="400") > 0
        assert server.metric("blvnet_rejected_total", reason="internal_error") == 0
        assert not server.lines(level="error")


def schemathesis(description: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a small, fixed set of examples; `folder` receives the report files."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = ["--seed", "1", "--max-examples", "3", "--phases", "coverage,fuzzing", "--no-shrink"]
    command = [program, "--no-color", "--config-file", str(CONFIG), "run", *options, description]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

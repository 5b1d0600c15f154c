"""Clients that generators make from the OpenAPI description classify videos and read errors.

The generators are installed from their registries into the virtual environment's folder `generators`, once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import RunningServer
from tests.support.tools import need

FOLDER = Path(sys.prefix) / "generators"
# Not in the extra `dev`: it needs an older typer than the command line.
PYTHON_GENERATOR = "openapi-python-client==0.29.1"
NODE_PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")

PYTHON_CALLER = """
import sys
from generated import Client
from generated.api.models import list_models
from generated.api.recognition import classify, timeline
from generated.models import ClassifyAnswer, Problem, VideoForm
from generated.types import File

url, good, bad = sys.argv[1:]
client = Client(base_url=url)
with open(good, "rb") as file:
    form = VideoForm(file=File(payload=file, file_name="clip.mp4"))
    answer = classify.sync(client=client, body=form, top_k=1)
assert isinstance(answer, ClassifyAnswer), answer
with open(good, "rb") as file:
    raw = classify.sync(client=client, body=File(payload=file))
assert isinstance(raw, ClassifyAnswer), raw
with open(bad, "rb") as file:
    refused = classify.sync(client=client, body=File(payload=file))
assert isinstance(refused, Problem), refused
with open(good, "rb") as file:
    lines = timeline.sync_detailed(client=client, body=File(payload=file), window_s=0.5).content.splitlines()
models = list_models.sync(client=client)
print(answer.predictions[0].label, raw.predictions[0].label, refused.code, len(lines), models.models[0].name)
"""

TYPESCRIPT_CALLER = """
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

const [url, good, bad] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

async function classify(path: string) {
  const file = new Blob([readFileSync(path)]) as unknown as string;
  return client.POST("/v1/classify", {
    params: { query: { top_k: 1 } },
    body: { file },
    bodySerializer: (body) => {
      const form = new FormData();
      form.set("file", (body as { file: string }).file as unknown as Blob);
      return form;
    },
  });
}

const answer = await classify(good);
const refused = await classify(bad);
const label: string | undefined = answer.data?.predictions[0].label;
const problem: components["schemas"]["Problem"] | undefined = refused.error;
const models = await client.GET("/v1/models");
console.log(label, problem?.code, refused.response.status, models.data?.models[0].name);
"""


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(command: list[str], stamp: Path) -> None:
    """Run an installation once; fail the test if its registry cannot be reached."""
    if stamp.exists():
        return
    run(command, FOLDER)
    stamp.touch()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, red_clip: bytes) -> list[str]:
    """A valid clip and a file that is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "red.mp4").write_bytes(red_clip)
    (folder / "text.mp4").write_text("just words. " * 100)
    return [str(folder / "red.mp4"), str(folder / "text.mp4")]


def test_generated_python_client_classifies_and_reads_errors(
    server: RunningServer, tmp_path: Path, videos: list[str]
) -> None:
    FOLDER.mkdir(exist_ok=True)
    python = FOLDER / "python" / "bin" / "python"
    install([sys.executable, "-m", "venv", "python"], FOLDER / "venv.done")
    install([str(python), "-m", "pip", "install", PYTHON_GENERATOR], FOLDER / f"{PYTHON_GENERATOR}.done")
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    generate = [str(python.with_name("openapi-python-client")), "generate", "--meta", "none"]
    generate += [
        "--url",
        f"{server.url}/openapi.json",
        "--config",
        "config.yml",
        "--output-path",
        "generated",
    ]
    run(generate, tmp_path)
    assert len(list((tmp_path / "generated" / "models").glob("*.py"))) < 100  # no copy of a model per status
    (tmp_path / "caller.py").write_text(PYTHON_CALLER)
    output = run([str(python), "caller.py", server.url, *videos], tmp_path)
    assert output.split() == ["red", "red", "not_a_video", "3", "tiny"]


def test_generated_typescript_client_type_checks_classifies_and_reads_errors(
    server: RunningServer, tmp_path: Path, videos: list[str]
) -> None:
    need("node", "npm", package="nodejs npm")
    FOLDER.mkdir(exist_ok=True)
    install(["npm", "install", "--no-fund", "--no-audit", *NODE_PACKAGES], FOLDER / "node.done")
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "caller.ts").write_text(TYPESCRIPT_CALLER)
    options = {
        "strict": True,
        "module": "esnext",
        "moduleResolution": "bundler",
        "target": "es2022",
        "lib": ["es2022", "dom"],
        "types": [],
        "skipLibCheck": True,
    }
    # Stands for the types of Node.
    (tmp_path / "node.d.ts").write_text(
        'declare module "node:fs" { export function readFileSync(path: string): Uint8Array<ArrayBuffer>; }\n'
        "declare const process: { argv: string[] };\n"
    )
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "files": ["node.d.ts", "caller.ts"]})
    )
    programs = FOLDER / "node_modules" / ".bin"
    run(
        [str(programs / "openapi-typescript"), f"{server.url}/openapi.json", "--output", "api.d.ts"], tmp_path
    )
    run([str(programs / "tsc")], tmp_path)
    output = run(["node", "caller.js", server.url, *videos], tmp_path)
    assert output.split() == ["red", "not_a_video", "415", "tiny"]

"""The command blocks of the documentation, and a shell that runs them against a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from service.packages.folders import bundled_models
from tests.support.observability import ROOT
from tests.support.server import RunningServer, clean_environment
from tests.support.tiny_models import colour_clip

PAGES = sorted(
    path for folder in (".", "docs", "examples", "blvnet_client") for path in (ROOT / folder).glob("*.md")
)
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
ADDRESS = "127.0.0.1:8000"
SERVER_OPTIONS = ("silent", "show-error", "fail-with-body")
# `pip install` installs into the folder `site`, and finds what it needs in the environment.
PIP = {"PIP_TARGET": "site", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
# `make` only prints its commands. If a page starts a server, the shared one reads its packages again.
PRELUDE = """
set -euo pipefail
make() {
    command make --directory "$ROOT" --dry-run "$@" > /dev/null
    if [[ " $* " = *" serve MODELS=models "* ]]; then
        kill -HUP "$SERVER_PID"
        for folder in models/*/; do
            address=$SERVER/v1/models/$(basename "$folder")
            until curl --output /dev/null "$address" 2> /dev/null; do sleep 0.05; done
        done
    fi
}
"""


@dataclass(frozen=True)
class Block:
    """A block of code in a page; `reason` says why no test runs it."""

    page: Path
    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block; those that continue on the next line are joined."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [line for line in lines if line.strip()]


def blocks(page: Path) -> list[Block]:
    """All blocks of code of a page that name their language."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, match["language"], match["text"], match["reason"]) for match in found]


def prepare(folder: Path) -> None:
    """Fill a folder with the files of the commands: those of the repository, and videos of the reader."""
    for name in ("README.md", "examples", "service"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(bundled_models(), folder / "models")
    shutil.copytree(ROOT / "blvnet_client", folder / "blvnet_client")  # an installation writes into it
    (folder / ".curlrc").write_text("\n".join(SERVER_OPTIONS))
    for label, colour in (("wave", (255, 0, 0)), ("clap", (0, 0, 255))):
        (folder / "clips" / label).mkdir(parents=True)
        for number in range(1, 4):
            red, green, blue = (part * (12 - number) // 12 for part in colour)
            (folder / "clips" / label / f"{number}.mp4").write_bytes(colour_clip((red, green, blue)))
    shutil.copytree(folder / "clips" / "wave", folder / "videos" / "monday")
    shutil.copy(folder / "clips" / "clap" / "1.mp4", folder / "new.mp4")


def run(text: str, language: str, folder: Path, server: RunningServer, **variables: str) -> str:
    """Run a block in the folder, with the server in place of the usual address; return what it prints."""
    text = text.replace(ADDRESS, server.url.removeprefix("http://"))
    environment = clean_environment() | PIP | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CURL_HOME": str(folder),
        "ROOT": str(ROOT),
        "SERVER": server.url,
        "SERVER_PID": str(server.process.pid),
    } | variables  # fmt: skip
    command = ["bash", "-c", PRELUDE + text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout

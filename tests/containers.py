"""Podman and buildah as tests need them: base images, the serving image, and its compose project."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.observability import ROOT

PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
PROMETHEUS_IMAGE = "docker.io/prom/prometheus:v3.5.0"
STAND_INS = {
    PYTHON_IMAGE: ("python", "localhost/blvnet-stand-in/python:bookworm"),
    PROMETHEUS_IMAGE: ("prometheus", "localhost/blvnet-stand-in/prometheus:bookworm"),
}
# Without systemd there is nobody to make control groups or to hold limits above those of this process.
PLAIN_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


def configure(folder: Path) -> dict[str, str]:
    """The environment for podman on this machine; without systemd it gets a configuration in `folder`."""
    if "CONTAINERS_CONF" in os.environ or Path("/run/systemd/system").is_dir():
        return dict(os.environ)
    path = folder / "containers.conf"
    path.write_text(PLAIN_CONFIGURATION)
    Path("/run/netns").mkdir(exist_ok=True)  # netavark expects it
    return os.environ | {"CONTAINERS_CONF": str(path)}


@dataclass(frozen=True)
class Podman:
    """Runs container programs in the repository, failing with their own words."""

    environment: Mapping[str, str]

    def run(self, *command: str | Path, **variables: str) -> str:
        """The standard output of a command that has to succeed."""
        result = self.attempt(*command, **variables)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def attempt(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail; `variables` join its environment."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """What podman knows of a container or an image."""
        [document] = json.loads(self.run("podman", "inspect", name))
        return dict(document)

    def base_image(self, image: str) -> str:
        """`image` if it is here or can be pulled; else the name of a stand-in, made if need be."""
        if self.attempt("podman", "image", "exists", image).returncode == 0:
            return image
        recipe, stand_in = STAND_INS[image]
        if self.attempt("podman", "image", "exists", stand_in).returncode == 0:
            return stand_in
        if self.attempt("podman", "pull", image).returncode == 0:
            return image
        self.run(ROOT / "tests/stand_in_image.sh", recipe, stand_in)
        return stand_in

    def build(self, dockerfile: str, tag: str, folder: Path, **arguments: str) -> None:
        """Build an image of the repository; pip inside is set up as it is outside."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        # The Docker format, because the other one has no HEALTHCHECK.
        options += ["--format=docker", "--isolation=chroot", *pip_volumes(folder)]
        self.run("buildah", "bud", *options, "-f", dockerfile, "-t", tag, ".")

    @contextmanager
    def compose(self, project: str, *files: str, **variables: str) -> Iterator[None]:
        """Service and Prometheus of docker-compose.yml with `files` on top, until the end of the block."""
        chosen = [option for file in ("docker-compose.yml", *files) for option in ("-f", file)]
        command = [str(Path(sys.executable).with_name("podman-compose")), "-p", project, *chosen]
        try:
            self.run(*command, "up", "-d", "--no-build", "service", "prometheus", **variables)
            yield
        finally:
            self.run(*command, "down", "-v", **variables)


def pip_volumes(folder: Path) -> list[str]:
    """Mounts that give pip inside a build the configuration, certificates and local indexes that it has here.

    pip's settings name files of this machine, which are mounted under their own paths.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = {
        name.rpartition(".")[2]: value.strip("'")
        for name, _, value in (line.partition("=") for line in listed.stdout.splitlines())
        if name.rpartition(".")[2] in {"cert", "index-url", "extra-index-url", "find-links", "proxy"}
    }
    config = configparser.RawConfigParser()
    config["global"] = settings
    with (path := folder / "pip.conf").open("w") as file:
        config.write(file)
    words = [word for value in settings.values() for word in value.split()]
    local = {word for word in words if word.startswith("/") and Path(word).exists()}
    # The pages of an index link to files beside it.
    local |= {str(Path(word.removeprefix("file://")).parent) for word in words if word.startswith("file://")}
    return [f"--volume={path}:/etc/pip.conf:ro", *(f"--volume={word}:{word}:ro" for word in sorted(local))]

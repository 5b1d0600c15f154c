"""Builds and runs images with podman and buildah: base images, the serving image, and the compose project."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.observability import ROOT

PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
PROMETHEUS_IMAGE = "docker.io/prom/prometheus:v3.5.0"
ALERTMANAGER_IMAGE = "docker.io/prom/alertmanager:v0.28.1"
HAPROXY_IMAGE = "docker.io/library/haproxy:3.2-alpine"
REDIS_IMAGE = "docker.io/valkey/valkey:8.1-alpine"
PROXY_STAND_IN = ("proxy", "localhost/blvnet-stand-in/proxy:bookworm")  # has both
MONITORING_STAND_IN = ("monitoring", "localhost/blvnet-stand-in/monitoring:bookworm")  # has both
STAND_INS = {
    HAPROXY_IMAGE: PROXY_STAND_IN,
    REDIS_IMAGE: PROXY_STAND_IN,
    PYTHON_IMAGE: ("python", "localhost/blvnet-stand-in/python:bookworm"),
    PROMETHEUS_IMAGE: MONITORING_STAND_IN,
    ALERTMANAGER_IMAGE: MONITORING_STAND_IN,
}
# Without systemd, podman can neither create control groups nor raise limits.
PLAIN_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


def configure(folder: Path) -> dict[str, str]:
    """The environment for podman; without systemd it includes a configuration in `folder`."""
    if "CONTAINERS_CONF" in os.environ or Path("/run/systemd/system").is_dir():
        return dict(os.environ)
    path = folder / "containers.conf"
    path.write_text(PLAIN_CONFIGURATION)
    Path("/run/netns").mkdir(exist_ok=True)  # expected by netavark
    return os.environ | {"CONTAINERS_CONF": str(path)}


@dataclass(frozen=True)
class Podman:
    """Runs container programs in a folder, by default the repository, and fails with their error output."""

    environment: Mapping[str, str]
    folder: Path = ROOT

    def run(self, *command: str | Path, **variables: str) -> str:
        """Run a command that must succeed; return its standard output."""
        result = self.attempt(*command, **variables)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def attempt(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail, with additional environment variables."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """The output of `podman inspect`."""
        [document] = json.loads(self.run("podman", "inspect", name))
        return dict(document)

    def base_image(self, image: str) -> str:
        """The name of `image` if it is available, or of a substitute that is built if necessary."""
        if self.attempt("podman", "image", "exists", image).returncode == 0:
            return image
        recipe, stand_in = STAND_INS[image]
        if self.attempt("podman", "image", "exists", stand_in).returncode == 0:
            return stand_in
        if self.attempt("podman", "pull", image).returncode == 0:
            return image
        self.run(ROOT / "tests/support/stand_in_image.sh", recipe, stand_in)
        return stand_in

    def build(self, dockerfile: str, tag: str, folder: Path, **arguments: str) -> None:
        """Build an image of the repository with the pip configuration of this machine."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        # The OCI format has no HEALTHCHECK.
        options += ["--format=docker", "--isolation=chroot", *pip_volumes(folder)]
        self.run("buildah", "bud", *options, "-f", dockerfile, "-t", tag, ".")

    @contextmanager
    def compose(
        self,
        project: str,
        *files: str,
        services: Sequence[str] = ("service", "prometheus"),
        **variables: str,
    ) -> Iterator[None]:
        """Run services of docker-compose.yml, with override `files`, during the block."""
        chosen = [option for file in ("docker-compose.yml", *files) for option in ("-f", file)]
        command = [str(Path(sys.executable).with_name("podman-compose")), "-p", project, *chosen]
        try:
            self.run(*command, "up", "-d", "--no-build", *services, **variables)
            yield
        finally:
            self.run(*command, "down", "-v", **variables)


def pip_volumes(folder: Path) -> list[str]:
    """Mounts that make pip's configuration, certificates and local indexes available in a build.

    Files that pip's settings reference are mounted under the same paths.
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
    # Index pages link to files in sibling folders.
    local |= {str(Path(word.removeprefix("file://")).parent) for word in words if word.startswith("file://")}
    return [f"--volume={path}:/etc/pip.conf:ro", *(f"--volume={word}:{word}:ro" for word in sorted(local))]

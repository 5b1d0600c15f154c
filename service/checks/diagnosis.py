"""Checks of an installation and its machine, each with a remedy; `blvnet doctor` prints them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from service.checks.fit import misfits
from service.engines.providers import ENGINES, EngineConfig, engine_versions, installed_providers
from service.engines.session import InferenceFailed
from service.errors import BlvnetError
from service.installation import install_command
from service.machine.resources import usable_cores, usable_memory_bytes
from service.models.engine_selection import open_package
from service.models.loading import load_package, read_package
from service.packages.folders import bundled_models, scan_packages
from service.pipeline.core_config import BYTES_PER_MB
from service.settings import Settings, load_settings, unknown_variables

OLDEST_PYTHON = (3, 11)


class Severity(StrEnum):
    """Whether the service works (`ok`), works with a drawback (`warning`), or does not work (`failed`)."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """Result of a check; `remedy` is empty if nothing has to be done."""

    check: str
    severity: Severity
    detail: str
    remedy: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def diagnose(environment: Mapping[str, str], models: Path | None = None) -> Iterator[Finding]:
    """Run all checks with the settings of the environment; yield each finding as soon as it is available."""
    yield from _python()
    try:
        settings = load_settings({"models": models})
        unknown = unknown_variables(environment)
    except BlvnetError as exc:
        yield Finding("settings", Severity.FAILED, exc.message, "correct the variable, or unset it")
        return
    for name in unknown:
        yield Finding("settings", Severity.WARNING, f"{name} is not a setting", "correct or unset it")
    if not unknown:
        yield Finding("settings", Severity.OK, "the environment is valid")
    for check in CHECKS:
        yield from check(settings)


def _python() -> Iterator[Finding]:
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", Severity.FAILED, detail, "install Python 3.11 or newer")
    else:
        yield Finding("python", Severity.OK, detail)


def _engines(settings: Settings) -> Iterator[Finding]:
    """Run the bundled model on each installed provider, because an installed engine may not work."""
    usable = 0
    names = installed_providers()
    for provider in names:
        version = engine_versions().get(ENGINES[provider], "")
        name = f"{provider} ({version})"
        config = EngineConfig(provider, threads=1, cache_dir=settings.cache_dir)
        try:
            package = scan_packages(bundled_models()).packages[0]
            load_package(package, partial(open_package, config=config)).opened.close()
        except (BlvnetError, InferenceFailed, ImportError, OSError) as exc:
            reason = " ".join(str(exc).split())
            remedy = "reinstall it, or select another with BLVNET_PROVIDER"
            yield Finding(
                "engine", Severity.WARNING, f"{name} does not run the bundled model: {reason}", remedy
            )
        else:
            usable += 1
            yield Finding("engine", Severity.OK, f"{name} runs the bundled model")
    if not usable:
        yield Finding("engine", Severity.FAILED, "no engine can run a model", install_command("cpu"))


def _codecs(_: Settings) -> Iterator[Finding]:
    try:
        import av.codec

        from service.clip.decoding.formats import CODECS
    except ImportError as exc:
        yield Finding("codecs", Severity.FAILED, f"PyAV cannot be imported: {exc}", "pip install av")
        return
    names = set(CODECS.values())
    found = {name for decoder, name in CODECS.items() if decoder in av.codec.codecs_available}
    lost = sorted(names - found)
    detail = f"PyAV {av.__version__} decodes {len(found)} of {len(names)} codecs"
    if lost:
        remedy = "install PyAV from its wheel: pip install --force-reinstall --only-binary av av"
        yield Finding("codecs", Severity.WARNING, f"{detail}; missing: {', '.join(lost)}", remedy)
    else:
        yield Finding("codecs", Severity.OK, detail)


def _cores(_: Settings) -> Iterator[Finding]:
    usable, machine = usable_cores(), os.cpu_count() or 1
    detail = f"{usable} of {machine} cores"
    if usable < machine:
        detail += " (affinity or a quota of a control group)"
    if usable == 1:
        remedy = "allow more cores: decoding and inference then run at the same time"
        yield Finding("cores", Severity.WARNING, detail, remedy)
    else:
        yield Finding("cores", Severity.OK, detail)


def _sandbox(_: Settings) -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("sandbox", Severity.WARNING, "decode workers are not isolated", "run on Linux")
        return
    from service.workers.sandbox import LANDLOCK, SECCOMP

    available = {"seccomp": SECCOMP, "landlock": LANDLOCK}
    active = [name for name, is_available in available.items() if is_available]
    if len(active) == len(available):
        yield Finding("sandbox", Severity.OK, "seccomp and Landlock isolate decode workers")
        return
    detail = f"decode workers are isolated by {' and '.join(active) or 'nothing'} only"
    remedy = "use a kernel from 5.13 on, and a container runtime whose seccomp profile allows them"
    yield Finding("sandbox", Severity.WARNING, detail, remedy)


def _memory_and_disk(settings: Settings) -> Iterator[Finding]:
    workers = settings.decode_workers or usable_cores()
    problems = list(misfits(settings, workers))
    for problem in problems:
        detail, _, remedy = problem.partition(": ")
        yield Finding("memory and disk", Severity.WARNING, detail, remedy)
    if not problems:
        memory = usable_memory_bytes() / BYTES_PER_MB
        free = shutil.disk_usage(tempfile.gettempdir()).free / BYTES_PER_MB
        detail = f"{memory:.0f} MB of memory; {free:.0f} MB free in {tempfile.gettempdir()}"
        yield Finding("memory and disk", Severity.OK, detail)


def _cache(settings: Settings) -> Iterator[Finding]:
    folder = settings.cache_dir
    remedy = "set BLVNET_CACHE_DIR to a folder that can be written; otherwise each start measures the engines"
    if folder is None:
        yield Finding("cache", Severity.WARNING, "there is no folder for measurements of engines", remedy)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        yield Finding("cache", Severity.WARNING, f"{folder}: {exc.strerror}", remedy)
    else:
        yield Finding("cache", Severity.OK, f"{folder} can be written")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        scan = scan_packages(settings.models)
    except BlvnetError as exc:
        remedy = "set BLVNET_MODELS to a folder of packages, MODELS/NAME/VERSION"
        yield Finding("models", Severity.FAILED, exc.message, remedy)
        return
    remedy = f"see: blvnet models --models {settings.models}"
    refused = dict(scan.unreadable)
    good = []
    for package in scan.packages:
        try:
            read_package(package)
        except BlvnetError as exc:
            refused[f"{package.name}/{package.version}"] = exc.message.removeprefix(f"{package.folder}: ")
        else:
            good.append(f"{package.name}/{package.version}")
    severity = Severity.WARNING if good else Severity.FAILED
    for name, reason in refused.items():
        yield Finding("models", severity, f"{name}: {reason}", remedy)
    if good:
        yield Finding("models", Severity.OK, f"{settings.models} has {', '.join(good)}")


CHECKS: tuple[Check, ...] = (_engines, _codecs, _cores, _sandbox, _memory_and_disk, _cache, _models)

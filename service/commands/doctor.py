"""`blvnet doctor`: check this installation and this machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import typer
from rich.console import Console
from rich.text import Text

from service.checks.diagnosis import Finding, Severity, diagnose
from service.commands.options import JsonOption, ModelsOption

STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAILED: "bold red"}


def doctor(models: ModelsOption = None, as_json: JsonOption = False) -> None:
    """Check Python, engines, codecs, cores, sandbox, memory, disk and models.

    Every line that is not ok names a remedy. The exit status is 1 if something is missing that the service
    needs.

    Example: blvnet doctor --models models
    """
    findings = []
    for finding in diagnose(os.environ, models):
        findings.append(finding)
        if not as_json:
            _print(finding)
    failed = any(finding.severity is Severity.FAILED for finding in findings)
    if as_json:
        document = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    console = Console(highlight=False, soft_wrap=True)
    severity = Text(f"{finding.severity:8}", style=STYLES[finding.severity])
    console.print(severity, Text(f"{finding.check}: {finding.detail}"), sep="")
    if finding.remedy:
        console.print(Text(f"        -> {finding.remedy}"))

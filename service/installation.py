"""How this package was installed, for hints that work."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import distributions
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "blvnet-serve"


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    The package is not published on an index, so the command names the checkout that this installation comes
    from. If that checkout is not on this machine, the command has to be run in a checkout.
    """
    python = shlex.quote(sys.executable)
    source = _source()
    if source is None:
        return f"{python} -m pip install '.[{extra}]' (in a checkout of {DISTRIBUTION})"
    folder, editable = source
    flag = "--editable " if editable else ""
    return f"{python} -m pip install {flag}{shlex.quote(f'{folder}[{extra}]')}"


def _source() -> tuple[str, bool] | None:
    """The folder that was installed, and whether the installation refers to it (PEP 610)."""
    # A checkout on Python's path has its own metadata, which does not say where it was installed from.
    texts = (found.read_text("direct_url.json") for found in distributions(name=DISTRIBUTION))
    text = next(filter(None, texts), None)
    if text is None:
        return None
    document = json.loads(text)
    url = urlsplit(document.get("url", ""))
    if url.scheme != "file" or "dir_info" not in document:
        return None
    return url2pathname(url.path), bool(document["dir_info"].get("editable"))

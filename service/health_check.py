"""Health check of the container image: `/readyz` of the service that runs as the first process.

The port is that of its `--port` option, or `BLVNET_PORT`. Imports only the standard library, because it runs
every few seconds.
"""

from __future__ import annotations

import os
import re
import urllib.request
from pathlib import Path

# Also holds the arguments if an init process or a shell started the service.
COMMAND_LINE = Path("/proc/1/cmdline")
TIMEOUT_S = 4.0


def port(command_line: bytes) -> str:
    """Return the port of a service with this command line, whose arguments each end with a zero byte."""
    words = command_line.replace(b"\0", b" ").decode(errors="replace")
    option = re.search(r"(?:^|\s)--port[ =](\d+)", words)
    return option[1] if option else os.environ.get("BLVNET_PORT", "8000")


def main() -> None:
    """Raise `OSError` unless the service is ready."""
    address = f"http://127.0.0.1:{port(COMMAND_LINE.read_bytes())}/readyz"
    urllib.request.urlopen(address, timeout=TIMEOUT_S).close()


if __name__ == "__main__":
    main()

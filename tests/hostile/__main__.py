"""`python -m tests.hostile`: post the whole corpus to a new service and print a report."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.harness import run
from tests.support.server import running_server
from tests.support.tiny_models import write_package


def main() -> int:
    """Run the passes; the exit status is 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=10, help="how often the corpus is posted (10)")
    parser.add_argument("--only", default="", help="files whose category/name has this in it")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        write_package(folder / "models")
        with running_server(folder / "models", {"TMPDIR": str(folder / "tmp")}, DECODE_WORKERS="2") as server:
            report = run(
                server,
                folder,
                arguments.passes,
                print,
                lambda item: arguments.only in f"{item.category}/{item.name}",
            )
            restarts = {
                reason: server.metric("blvnet_decode_worker_restarts_total", reason=reason)
                for reason in ("crashed", "killed", "timeout", "error", "recycled")
            }
    print(f"{report.items} files in {time.monotonic() - began:.0f} s; slowest {report.slowest}")
    print(f"workers replaced: {restarts}")
    print("\n".join(report.faults) or "no fault")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())

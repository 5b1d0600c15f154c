"""`python -m tests.fuzz`: fuzz for a given time and store the findings."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.clips import clip_number
from tests.fuzz.long import run


def main() -> int:
    """Fuzz with a progress line per round; the exit status is 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("fuzz-finds"),
        help="for finds, the corpus of packets and totals; a later run goes on with it (fuzz-finds)",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of a new folder (the time)")
    parser.add_argument("--workers", type=int, default=1, help="clips at a time (1)")
    parser.add_argument("--no-readers", action="store_true", help="clips alone")
    parser.add_argument("--show", type=int, help="write the clip of this number to standard output instead")
    arguments = parser.parse_args()
    if arguments.show is not None:
        sys.stdout.buffer.write(clip_number(arguments.show))
        return 0
    readers = not arguments.no_readers
    if readers and find_spec("atheris") is None:
        parser.error("there is no atheris for this Python and processor: --no-readers")
    going = run(arguments.folder, arguments.minutes * 60, arguments.seed, arguments.workers, _tell, readers)
    try:
        _, broke = asyncio.run(going)
    except KeyboardInterrupt:
        _tell(f"interrupted; {arguments.folder}/state.json has the rounds that were over")
        return 130
    return bool(broke)


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.fuzz`: mutated clips for as long as you like; what breaks something is saved."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.fuzz.clips import Fuzzing, clip_number, fuzz


def main() -> int:
    """Fuzz, with a line of progress now and then; the exit status is 1 if anything broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--first", type=int, default=int(time.time()) * 1000, help="number of the first clip")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="where to save (fuzz-finds)")
    parser.add_argument("--show", type=int, help="write the clip of this number to standard output instead")
    arguments = parser.parse_args()
    if arguments.show is not None:
        sys.stdout.buffer.write(clip_number(arguments.show))
        return 0
    fuzzing = asyncio.run(fuzz(arguments.first, arguments.minutes * 60, _tell))
    for find in fuzzing.finds:
        arguments.finds.mkdir(exist_ok=True)
        (arguments.finds / f"{find.number}").write_bytes(find.data)
        print(f"{find.number}: {find.what}")
    _tell(fuzzing)
    return bool(fuzzing.finds)


def _tell(fuzzing: Fuzzing) -> None:
    print(f"{fuzzing.tried} clips, {len(fuzzing.finds)} finds, {dict(fuzzing.answers)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

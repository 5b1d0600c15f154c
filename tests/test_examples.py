"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server import RunningServer

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_classify_prints_the_label_of_a_good_clip_and_the_problem_of_a_bad_one(
    server: RunningServer, red_clip: bytes, tmp_path: Path
) -> None:
    (good := tmp_path / "good.mp4").write_bytes(red_clip)
    (bad := tmp_path / "bad.mp4").write_text("just words. " * 100)
    command = [sys.executable, str(EXAMPLES / "classify.py"), server.url, str(good), str(bad)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith(f"{good}: red (")
    assert lines[1].startswith(f"{bad}: This is not a video")

"""The benchmark of the memory of evaluations, on a network that takes a second."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.evaluation_memory import CLIPS, CROPS, main


def test_peak_memory_of_a_small_network_is_written(tmp_path: Path) -> None:
    main(network=["tsn-mini-f2"], size=32, results=tmp_path)
    (case,) = json.loads((tmp_path / "evaluation_memory.json").read_text())["cases"]
    assert (case["network"], case["clips"]) == ("tsn-mini-f2", 2)
    assert 100e6 < case["peak_memory_bytes"] < 4e9
    text = (tmp_path / "evaluation_memory.md").read_text()
    assert f"| `tsn-mini-f2` | 32 | {CLIPS * CROPS} | {case['peak_memory_bytes'] / 1e9:.2f} GB |" in text

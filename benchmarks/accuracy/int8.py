"""Makes an int8 package from a float package and compares the answers of both.

This needs no checkpoint: `blvnet export --precision int8` quantizes the same graph, the one that the float
package has for OpenVINO, so the same quantizer and the same videos give the same int8 graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from benchmarks.accuracy.shares import difference_interval, interval, share
from model_export.export.calibration import examples_in_folder, read_clips
from model_export.export.int8 import quantize
from model_export.export.precision import BOUNDS, CALIBRATION_CLIPS, LIMITS, Precision
from model_export.progress import ProgressReporter
from service.packages.manifest import GRAPH_FILE, read_manifest, sha256_of, write_manifest

ENGINE = "openvino"  # its graph is rounded


def write_int8(package: Path, clips: Path, models: Path, say: Callable[[str], None]) -> str:
    """Write the int8 version of a float package below `models` and return its name.

    Args:
        package: folder of the float package.
        clips: folder of calibration videos, of which at most `CALIBRATION_CLIPS` are used.
        models: folder of packages.
        say: called with a description of each step.
    """
    manifest = read_manifest(package)
    graph = onnx.load(package / manifest.graph(ENGINE).file)
    calibration = read_clips(
        examples_in_folder(clips), manifest.clip, CALIBRATION_CLIPS, ProgressReporter(), repeat=False
    )
    say(f"quantizing {manifest.name} to int8")
    name = f"{manifest.name}-{Precision.INT8}"
    folder = models / name / str(manifest.version)
    folder.mkdir(parents=True)
    (folder / GRAPH_FILE).write_bytes(quantize(graph, calibration).SerializeToString())
    reference = manifest.reference
    rounded = manifest.model_copy(
        update={
            "name": name,
            "precision": Precision.INT8.value,
            "sha256": sha256_of(folder / GRAPH_FILE),
            "graphs": {},
            "reference": reference and reference.model_copy(update={"bound": BOUNDS[Precision.INT8].probes}),
            "parity": {},
        }
    )
    write_manifest(rounded, folder)
    return name


def comparison(truths: Sequence[str], before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    """Compare the top labels of two models on the same clips: accuracy, agreement and loss with intervals."""
    clips = len(truths)
    was, now = (
        [label == truth for label, truth in zip(best, truths, strict=True)] for best in (before, after)
    )
    lost = sum(a and not b for a, b in zip(was, now, strict=True))
    gained = sum(b and not a for a, b in zip(was, now, strict=True))
    same = [a == b for a, b in zip(before, after, strict=True)]
    return {
        "top1": share(now),
        "top1_interval": interval(sum(now), clips),
        "agreement": share(same),
        "agreement_interval": interval(sum(same), clips),
        "lost": lost,
        "gained": gained,
        "drop_points": 100 * (lost - gained) / clips,
        "drop_points_interval": [100 * end for end in difference_interval(lost, gained, clips)],
        "max_drop_points": LIMITS.max_drop,
    }

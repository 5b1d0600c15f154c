"""What rounding to int8 costs a package: the rounded one made from it, and both answers to the same clips.

The bundled package has no checkpoint beside it, and needs none: its float graph for OpenVINO is the one that
`blvnet export --precision int8` rounds, so the same quantiser on the same clips gives the same int8 graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from benchmarks.shares import difference_interval, interval, share
from model_export.calibration import clips_in_folder, read_clips
from model_export.precision import BOUNDS, CALIBRATION_CLIPS, MAX_DROP, Precision
from model_export.progress import Say
from model_export.quantize import quantize
from service.manifest import GRAPH_FILE, read_manifest, sha256_of, write_manifest

ENGINE = "openvino"  # whose graph is rounded


def write_int8(package: Path, clips: Path, models: Path, say: Say) -> str:
    """Write the int8 package of a float package below `models`; its name.

    Args:
        package: folder of the float package.
        clips: folder of the clips that its ranges are measured on, at most `CALIBRATION_CLIPS` of them.
        models: folder of packages.
        say: told each step.
    """
    manifest = read_manifest(package)
    graph = onnx.load(package / manifest.graph(ENGINE).file)
    calibration = read_clips(clips_in_folder(clips), manifest.clip, CALIBRATION_CLIPS, repeat=False)
    say(f"rounding {manifest.name} to int8")
    name = f"{manifest.name}-{Precision.INT8}"
    folder = models / name / str(manifest.version)
    folder.mkdir(parents=True)
    (folder / GRAPH_FILE).write_bytes(quantize(graph, calibration).SerializeToString())
    reference = manifest.reference
    rounded = replace(
        manifest,
        name=name,
        precision=Precision.INT8.value,
        sha256=sha256_of(folder / GRAPH_FILE),
        graphs={},
        reference=reference and replace(reference, bound=BOUNDS[Precision.INT8].logits),
        parity={},
    )
    write_manifest(rounded, folder)
    return name


def comparison(truths: Sequence[str], before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    """What top-1 lost between two answers to the same clips: their labels, and the best label each time."""
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
        "max_drop_points": MAX_DROP,
    }

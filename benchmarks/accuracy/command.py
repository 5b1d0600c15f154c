"""Accuracy of the running service over HTTP on newly generated videos.

    python -m benchmarks.accuracy                       a fresh `blvnet serve` with the bundled demo model
    python -m benchmarks.accuracy --server URL          a running service, without int8

The videos belong to the test split, whose shapes and textures do not occur in training, and use a separate
seed. The same videos are posted to an int8 package that is made from the model, so that the effect of
quantization is measured on videos that neither training nor calibration has used. Finally every video of a
motion that has an opposite is reversed, encoded and posted again. The service must now return the opposite
label, which a network that ignores the order of frames does not do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import av
import httpx
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.accuracy.int8 import comparison, write_int8
from benchmarks.accuracy.shares import interval, share
from benchmarks.common import report
from benchmarks.common import service_process as serving
from model_export.export.precision import CALIBRATION_CLIPS, Precision
from model_export.progress import counting
from model_export.synthetic.encode import SUFFIX, Codec, Encoding, write_video
from model_export.synthetic.labels import LABELS, REVERSED, Split
from service.packages.folders import Package, bundled_models, scan_packages
from service.packages.manifest import read_manifest

NAME = "accuracy"
CLIPS = 2420  # 110 per label; one clip is 0.04 points of top-1
SEED = 190_200_869  # not used by any training command of the project
CALIBRATION_SPLIT: Split = "val"
CALIBRATION_SEED = 1  # seed of the bundled model's training; its weights were selected on this split
REVERSED_CRF = 18  # visually close to the original, so that the motion is tested and not the codec
STAGES = ("receive", "decode", "queue", "inference", "total")


@dataclass(frozen=True)
class ClipOutcome:
    """The answer for one video: scores by label, and milliseconds by stage."""

    truth: str
    scores: dict[str, float]
    timing_ms: dict[str, float]

    @property
    def ranked(self) -> list[str]:
        """The labels, best first."""
        return sorted(self.scores, key=lambda label: -self.scores[label])

    @property
    def right(self) -> bool:
        """Whether the top label is correct."""
        return self.ranked[0] == self.truth

    def right_of_two(self) -> bool:
        """Whether the true label scores higher than its opposite."""
        return self.scores[self.truth] > self.scores[REVERSED[self.truth]]


@dataclass(frozen=True)
class QuantizedModel:
    """A served int8 package, and the number of clips it was calibrated on."""

    name: str
    calibration_clips: int


@dataclass(frozen=True)
class Served:
    """A running service, the model to use (None for the default), and its int8 version if there is one."""

    url: str
    model: str | None
    int8: QuantizedModel | None = None


def main(
    server: Annotated[str | None, typer.Option(help="Address of a running service.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Model packages of the service that is started.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to use; default: the service's default.")
    ] = None,
    clips: Annotated[int, typer.Option(min=len(LABELS), help="Number of videos to generate.")] = CLIPS,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the videos; must differ from those of the training data.")
    ] = SEED,
    int8: Annotated[bool, typer.Option(help="Also measure an int8 version; not with --server.")] = True,
    calibration_clips: Annotated[
        int, typer.Option(min=1, max=CALIBRATION_CLIPS, help="Number of calibration videos for int8.")
    ] = CALIBRATION_CLIPS,
    jobs: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure the accuracy of a service over HTTP, forwards, reversed and in int8."""
    began = time.monotonic()
    calibration = calibration_clips if int8 else 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        _served(server, models, model, calibration, Path(scratch)) as served,
    ):
        folder = Path(scratch, "clips")
        make_clips(folder, "test", clips, seed)
        found = [(path, path.parent.name) for path in sorted(folder.glob("test/*/*"))]
        document = judge(served, found, jobs) | {
            "seed": seed,
            "clips_bytes": sum(path.stat().st_size for path, _ in found),
            "took_s": time.monotonic() - began,
            "machine": report.machine(),
        }
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def judge(served: Served, found: Sequence[tuple[Path, str]], jobs: int) -> dict[str, Any]:
    """Post every (file, true label) to all models, and reversed to the first; return all figures."""
    with serving.client(served.url) as client:
        described = _describe(client, served.model)
        ask = partial(_ask, client, described["name"])
        forwards = measure("clips posted", found, Path.read_bytes, ask, jobs)
        int8 = None
        if served.int8:
            ask_int8 = partial(_ask, client, served.int8.name)
            rounded = measure("clips posted to int8", found, Path.read_bytes, ask_int8, jobs)
            int8 = {
                "model": _describe(client, served.int8.name),
                "calibration": {
                    "split": CALIBRATION_SPLIT,
                    "seed": CALIBRATION_SEED,
                    "clips": served.int8.calibration_clips,
                },
            } | comparison([label for _, label in found], best(forwards), best(rounded))
        pairs = [(path, REVERSED[label]) for path, label in found if REVERSED[label] != label]
        backwards = measure("reversed clips posted", pairs, reversed_clip, ask, jobs)
    return summary(forwards, backwards) | {"int8": int8, "model": described}


def best(outcomes: Sequence[ClipOutcome]) -> list[str]:
    """The top label of each outcome."""
    return [outcome.ranked[0] for outcome in outcomes]


def make_clips(folder: Path, split: Split, clips: int, seed: int) -> None:
    """Generate videos of a split below `folder` with `blvnet synth`."""
    command = [str(Path(sys.executable).with_name("blvnet")), "synth", str(folder), "--only", split]
    subprocess.run([*command, "--clips", str(clips), "--seed", str(seed)], check=True)


def measure(
    description: str,
    clips: Sequence[tuple[Path, str]],
    read: Callable[[Path], bytes],
    ask: Callable[[bytes, str], ClipOutcome],
    jobs: int,
) -> list[ClipOutcome]:
    """Read and classify every (file, true label), `jobs` at a time, with a progress bar."""
    outcomes = []
    with counting(description, len(clips)) as tick, ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda clip: ask(read(clip[0]), clip[1]), clips):
            outcomes.append(outcome)
            tick(1)
    return outcomes


def reversed_clip(path: Path) -> bytes:
    """Reverse a video and encode it again with the same codec, rate and size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, codec = stream.average_rate, stream.codec_context.name
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return _encoded(
        np.asarray(frames[::-1], np.uint8), Fraction(rate or 25), "h264" if codec == "h264" else "vp9"
    )


def summary(forwards: Sequence[ClipOutcome], backwards: Sequence[ClipOutcome]) -> dict[str, Any]:
    """All figures of the report."""
    paired = [outcome for outcome in forwards if REVERSED[outcome.truth] != outcome.truth]
    by_label: dict[str, list[ClipOutcome]] = defaultdict(list)
    for outcome in forwards:
        by_label[outcome.truth].append(outcome)
    mistakes = Counter((o.truth, o.ranked[0]) for o in forwards if not o.right)
    return {
        "clips": len(forwards),
        "top1": share(o.right for o in forwards),
        "top1_interval": interval(sum(o.right for o in forwards), len(forwards)),
        "top5": share(o.truth in o.ranked[:5] for o in forwards),
        "pairs": {
            "clips": len(paired),
            "top1": share(o.right for o in paired),
            "right_of_two": share(o.right_of_two() for o in paired),
        },
        "reversed": {
            "clips": len(backwards),
            "opposite_label": share(o.right for o in backwards),
            "right_of_two": share(o.right_of_two() for o in backwards),
        },
        "labels": {label: share(o.right for o in by_label[label]) for label in LABELS if label in by_label},
        "mistakes": [
            {"truth": truth, "answer": answer, "clips": count}
            for (truth, answer), count in mistakes.most_common()
        ],
        "p50_ms": {stage: statistics.median(o.timing_ms[stage] for o in forwards) for stage in STAGES},
    }


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    low, high = document["top1_interval"]
    pairs, backwards = document["pairs"], document["reversed"]
    overall = [
        ("top-1", f"{document['top1']:.2%}", f"{low:.1%} to {high:.1%}", f"{document['clips']}"),
        ("top-5", f"{document['top5']:.2%}", "", f"{document['clips']}"),
        ("top-1 on motions with an opposite", f"{pairs['top1']:.2%}", "", f"{pairs['clips']}"),
        (
            "correct label scores higher than its opposite",
            f"{pairs['right_of_two']:.2%}",
            "",
            f"{pairs['clips']}",
        ),
        (
            "opposite label for reversed videos",
            f"{backwards['opposite_label']:.2%}",
            "",
            f"{backwards['clips']}",
        ),
    ]
    labels = [(label, f"{value:.1%}") for label, value in document["labels"].items()]
    mistakes = [(m["truth"], m["answer"], str(m["clips"])) for m in document["mistakes"]]
    stages = [(stage, f"{value:.1f}") for stage, value in document["p50_ms"].items()]
    model = document["model"]
    runs_as = f"{model['precision']}, {model['provider']}"
    size, took = document["clips_bytes"] / 1e6, document["took_s"]
    return "\n".join(
        [
            f"# Accuracy of {model['name']} {model['version']} ({runs_as}), over HTTP\n",
            f"`python -m benchmarks.accuracy --clips {document['clips']} --seed {document['seed']}`",
            report.described_machine(document["machine"]),
            f"{size:.0f} MB of videos; {took:.0f} s including their generation.\n",
            report.table(("", "share", "95 % interval", "clips"), overall),
            *([int8_as_text(document)] if document["int8"] else []),
            report.table(("label", "top-1"), labels),
            report.table(("true label", "predicted label", "clips"), mistakes) if mistakes else "None.\n",
            report.table(("stage", "p50 ms"), stages),
        ]
    )


def int8_as_text(document: dict[str, Any]) -> str:
    """The int8 part of the report as Markdown."""
    int8 = document["int8"]
    calibration, model = int8["calibration"], int8["model"]
    rows = [
        ("top-1 in float32", document["top1"], document["top1_interval"]),
        ("top-1 in int8", int8["top1"], int8["top1_interval"]),
        ("same top-1 label", int8["agreement"], int8["agreement_interval"]),
    ]
    shares = [(name, f"{value:.2%}", f"{low:.1%} to {high:.1%}") for name, value, (low, high) in rows]
    low, high = int8["drop_points_interval"]
    lost = ("loss of top-1 in points", f"{int8['drop_points']:.2f}", f"{low:.2f} to {high:.2f}")
    table = report.table(("", "share", "95 % interval"), [*shares, lost])
    runs_as = f"{model['precision']}, {model['provider']}"
    clips = f"{calibration['clips']} clips of the {calibration['split']} split, seed {calibration['seed']}"
    return f"""The same videos with {model["name"]} ({runs_as}), calibrated on {clips}:

{table}
Correct only in float32: {int8["lost"]}; correct only in int8: {int8["gained"]}. `blvnet export`
accepts a loss of {int8["max_drop_points"]} points.
"""


@contextmanager
def _served(
    server: str | None, models: Path | None, model: str | None, calibration_clips: int, folder: Path
) -> Iterator[Served]:
    """The given service, or a new one with the model and, if requested, its int8 version."""
    if server is not None:
        yield Served(server, model)
        return
    package = _package(models or bundled_models(), model)
    precision = read_manifest(package.folder).precision
    if calibration_clips and precision != Precision.FP32:
        raise typer.BadParameter(f"{package.name} is {precision}, but int8 needs fp32; use --no-int8")
    copies = folder / "models"
    shutil.copytree(package.folder, copies / package.name / str(package.version))
    int8 = _rounded(package, calibration_clips, copies) if calibration_clips else None
    settings = serving.MAKE_SERVE | os.environ if models is None else None
    with serving.service(copies, settings) as started:
        yield Served(started.url, package.name, int8)


def _rounded(package: Package, calibration_clips: int, models: Path) -> QuantizedModel:
    """Write the int8 version of a float package below `models`."""
    with tempfile.TemporaryDirectory() as scratch:
        clips = Path(scratch, "clips")
        make_clips(clips, CALIBRATION_SPLIT, calibration_clips, CALIBRATION_SEED)
        say = partial(print, file=sys.stderr)
        return QuantizedModel(write_int8(package.folder, clips, models, say), calibration_clips)


def _package(models: Path, name: str | None) -> Package:
    """The highest version of a model, or of the first model if no name is given."""
    packages = scan_packages(models).packages
    chosen = [package for package in packages if name in (None, package.name)]
    if not chosen:
        raise typer.BadParameter(f"{models} contains no model {name!r}")
    return chosen[0]


def _describe(client: httpx.Client, model: str | None) -> dict[str, Any]:
    """Name, version, precision, provider and digest of the model."""
    entries: list[dict[str, Any]] = client.get("/v1/models").raise_for_status().json()["models"]
    serving_now = [entry for entry in entries if entry["state"] == "ready"]
    chosen = [entry for entry in serving_now if model in (None, entry["name"])]
    if not chosen:
        raise typer.BadParameter(f"the service has no model {model!r}")
    return {key: chosen[0][key] for key in ("name", "version", "precision", "provider", "sha256")}


def _ask(client: httpx.Client, model: str, clip: bytes, truth: str) -> ClipOutcome:
    answer = serving.classify(client, clip, model=model, top_k=len(LABELS))
    scores = {prediction["label"]: prediction["score"] for prediction in answer["predictions"]}
    return ClipOutcome(truth, scores, answer["timing_ms"])


def _encoded(frames: NDArray[np.uint8], rate: Fraction, codec: Codec) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip" + SUFFIX[codec])
        write_video(path, frames, Encoding(codec, rate, REVERSED_CRF, b_frames=0, gop=len(frames)))
        return path.read_bytes()

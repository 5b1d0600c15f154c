"""How often the running service is right, measured over HTTP on clips that nobody has seen before.

    python -m benchmarks.accuracy                       a fresh `blvnet serve` with the bundled demo model
    python -m benchmarks.accuracy --server URL          a service that runs already

Fresh clips of the test split (its shapes and textures are in no training clip) are made from a seed of
their own and posted. Then every clip whose motion has an opposite is played backwards, encoded again and
posted again: the service must now say the opposite, which no network that ignores the order of frames can.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from benchmarks import report, serving
from model_export.progress import counting
from model_export.synthetic.classes import LABELS, REVERSED
from model_export.synthetic.encode import SUFFIX, Codec, Encoding, write_video

NAME = "accuracy"
CLIPS = 1100  # 50 of each label
SEED = 190_200_869  # no training command of the project uses it
REVERSED_CRF = 18  # close to what the eye cannot tell from the original: the motion is tested, not the codec
STAGES = ("receive", "decode", "queue", "inference", "total")
CONFIDENCE_Z = 1.96  # 95 %


@dataclass(frozen=True)
class Outcome:
    """What the service said of one clip: labels best first with their scores, and milliseconds per stage."""

    truth: str
    scores: dict[str, float]
    timing_ms: dict[str, float]

    @property
    def ranked(self) -> list[str]:
        """The labels, best first."""
        return sorted(self.scores, key=lambda label: -self.scores[label])

    @property
    def right(self) -> bool:
        """Whether the best label is the true one."""
        return self.ranked[0] == self.truth

    def right_of_two(self) -> bool:
        """Whether the true label scores higher than its opposite, whatever the others score."""
        return self.scores[self.truth] > self.scores[REVERSED[self.truth]]


def main(
    server: Annotated[str | None, typer.Option(help="A running service; without it one is started.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Model packages for the service that is started.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask; the service's default if not given.")
    ] = None,
    clips: Annotated[int, typer.Option(min=len(LABELS), help="Fresh clips to make.")] = CLIPS,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the clips; one that was never trained on.")
    ] = SEED,
    jobs: Annotated[int, typer.Option(min=1, help="Clips posted at a time.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = report.RESULTS,
) -> None:
    """Measure the accuracy of a running service over HTTP, forwards and backwards."""
    with tempfile.TemporaryDirectory() as scratch, _service(server, models) as url:
        folder = Path(scratch, "clips")
        make_clips(folder, clips, seed)
        found = [(path, path.parent.name) for path in sorted(folder.glob("test/*/*"))]
        with serving.client(url) as client:
            described = _describe(client, model)
            ask = partial(_ask, client, described["name"])
            forwards = measure("clips posted", found, Path.read_bytes, ask, jobs)
            pairs = [(path, REVERSED[label]) for path, label in found if REVERSED[label] != label]
            backwards = measure("reversed clips posted", pairs, reversed_clip, ask, jobs)
    document = summary(forwards, backwards) | {"seed": seed, "model": described, "machine": report.machine()}
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def make_clips(folder: Path, clips: int, seed: int) -> None:
    """Make `clips` clips of the test split below `folder` with the command that users have."""
    command = [str(Path(sys.executable).with_name("blvnet")), "synth", str(folder), "--only", "test"]
    subprocess.run([*command, "--clips", str(clips), "--seed", str(seed)], check=True)


def measure(
    description: str,
    clips: Sequence[tuple[Path, str]],
    read: Callable[[Path], bytes],
    ask: Callable[[bytes, str], Outcome],
    jobs: int,
) -> list[Outcome]:
    """Read and ask for every (file, true label), `jobs` at a time, showing how far it is."""
    outcomes = []
    with counting(description, len(clips)) as tick, ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda clip: ask(read(clip[0]), clip[1]), clips):
            outcomes.append(outcome)
            tick(1)
    return outcomes


def reversed_clip(path: Path) -> bytes:
    """The clip at `path`, its frames in reverse order, encoded again with its own codec, rate and size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, codec = stream.average_rate, stream.codec_context.name
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return _encoded(
        np.asarray(frames[::-1], np.uint8), Fraction(rate or 25), "h264" if codec == "h264" else "vp9"
    )


def summary(forwards: Sequence[Outcome], backwards: Sequence[Outcome]) -> dict[str, Any]:
    """Every figure of the report."""
    paired = [outcome for outcome in forwards if REVERSED[outcome.truth] != outcome.truth]
    by_label: dict[str, list[Outcome]] = defaultdict(list)
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


def share(values: Iterable[bool]) -> float:
    """The share of true values."""
    return statistics.fmean(values)


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, which unlike the plain one stays inside [0, 1] near its ends."""
    observed, z2 = right / of, CONFIDENCE_Z**2
    middle = (observed + z2 / (2 * of)) / (1 + z2 / of)
    half = CONFIDENCE_Z * math.sqrt(observed * (1 - observed) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return middle - half, middle + half


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    low, high = document["top1_interval"]
    pairs, backwards = document["pairs"], document["reversed"]
    overall = [
        ("top-1", f"{document['top1']:.2%}", f"{low:.1%} to {high:.1%}", f"{document['clips']}"),
        ("top-5", f"{document['top5']:.2%}", "", f"{document['clips']}"),
        ("top-1 on motions that have an opposite", f"{pairs['top1']:.2%}", "", f"{pairs['clips']}"),
        (
            "of a motion and its opposite, the right one",
            f"{pairs['right_of_two']:.2%}",
            "",
            f"{pairs['clips']}",
        ),
        (
            "played backwards, the opposite label",
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
    return "\n".join(
        [
            f"# Accuracy of {model['name']} {model['version']} ({runs_as}), over HTTP\n",
            f"`python -m benchmarks.accuracy --clips {document['clips']} --seed {document['seed']}`",
            report.described_machine(document["machine"]) + "\n",
            report.table(("", "share", "95 % interval", "clips"), overall),
            report.table(("label", "top-1"), labels),
            report.table(("mistaken", "for", "clips"), mistakes) if mistakes else "No mistakes.\n",
            report.table(("stage", "p50 ms"), stages),
        ]
    )


@contextmanager
def _service(server: str | None, models: Path | None) -> Iterator[str]:
    if server is not None:
        yield server
        return
    with serving.service(models) as started:
        yield started.url


def _describe(client: httpx.Client, model: str | None) -> dict[str, Any]:
    """Name, version, precision, provider and digest of the model that is asked."""
    entries: list[dict[str, Any]] = client.get("/v1/models").raise_for_status().json()["models"]
    serving_now = [entry for entry in entries if entry["state"] == "ready"]
    chosen = [entry for entry in serving_now if model in (None, entry["name"])]
    if not chosen:
        raise typer.BadParameter(f"the service has no model {model!r}")
    return {key: chosen[0][key] for key in ("name", "version", "precision", "provider", "sha256")}


def _ask(client: httpx.Client, model: str, clip: bytes, truth: str) -> Outcome:
    answer = serving.classify(client, clip, model=model, top_k=len(LABELS))
    scores = {prediction["label"]: prediction["score"] for prediction in answer["predictions"]}
    return Outcome(truth, scores, answer["timing_ms"])


def _encoded(frames: NDArray[np.uint8], rate: Fraction, codec: Codec) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip" + SUFFIX[codec])
        write_video(path, frames, Encoding(codec, rate, REVERSED_CRF, b_frames=0, gop=len(frames)))
        return path.read_bytes()


if __name__ == "__main__":
    typer.run(main)

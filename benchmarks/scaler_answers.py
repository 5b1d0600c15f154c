"""Effect of the scaler on the answers of a model, compared with PIL.

    python -m benchmarks.scaler_answers [--models DIR] [--model NAME] [CLIP...]

`scaler_fidelity` compares pixels; this benchmark compares logits. The published networks were evaluated on
frames scaled by PIL: full-size RGB, antialiased bilinear scaling of the shorter side, centre crop. By default
it generates videos of every label, which needs the `train` extra.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.common.report import RESULTS, described_machine, machine, table, write
from benchmarks.scaler_fidelity import REFERENCES, pil_scaled
from service.clip.decoding.clips import decode_video
from service.clip.geometry import crop_boxes
from service.clip.spec import ClipSpec
from service.engines.providers import open_session
from service.engines.session import Session
from service.packages.folders import bundled_models
from service.packages.manifest import GRAPH_FILE, Manifest, read_manifest

CLIPS_PER_LABEL = 4


@dataclass(frozen=True)
class ScalerComparison:
    """The answers for one video with both scalers.

    `pixels` is the mean absolute difference of the inputs in levels of 255, `logits` the largest difference
    of a logit relative to PIL's largest logit, and `top1` the predicted classes, ours first.
    """

    pixels: float
    logits: float
    top1: tuple[int, int]


def compare(clip: Path, spec: ClipSpec, session: Session) -> ScalerComparison:
    """Classify a video with frames scaled by our code and by PIL."""
    decoded = decode_video(clip, spec)
    reference = pil_inputs(clip, spec, decoded.indices[0])
    ours, theirs = (session.run(inputs).logits[0] for inputs in (decoded.inputs, reference))
    differences = [
        np.abs(decoded.inputs[name].astype(np.int16) - pixels).ravel() for name, pixels in reference.items()
    ]
    return ScalerComparison(
        pixels=float(np.concatenate(differences).mean()),
        logits=float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        top1=(int(ours.argmax()), int(theirs.argmax())),
    )


def pil_inputs(clip: Path, spec: ClipSpec, indices: Sequence[int]) -> dict[str, NDArray[np.uint8]]:
    """Inputs `(1, T_branch, size, size, 3)` of the frames `indices` of an unrotated video, scaled by PIL."""
    with av.open(str(clip)) as container:
        frames = list(container.decode(video=0))
    chosen = [frames[index] for index in indices]
    inputs = {}
    for item in spec.inputs:
        images = [
            pil_scaled(frame, item.scale, REFERENCES["accurate"]) for frame in chosen[item.of(len(chosen))]
        ]
        height, width, _ = images[0].shape
        (box,) = crop_boxes(width, height, item.size, 1)
        rows, columns = slice(box.top, box.top + item.size), slice(box.left, box.left + item.size)
        inputs[item.name] = np.stack([image[rows, columns] for image in images])[None]
    return inputs


def open_package(models: Path, name: str) -> tuple[Manifest, Session]:
    """Open the highest version of a package on the CPU."""
    versions = (models / name).iterdir()
    folder = max((path for path in versions if path.name.isdigit()), key=lambda path: int(path.name))
    return read_manifest(folder), open_session(folder / GRAPH_FILE, "cpu", threads=1)


def generate_videos(folder: Path, per_label: int, seed: int) -> list[Path]:
    """Generate test videos of every label."""
    from model_export.synthetic.dataset import plan, write_dataset
    from model_export.synthetic.labels import LABELS

    return list(write_dataset(folder, plan(per_label * len(LABELS), seed, {"test": 1.0}), jobs=1))


def main(
    clips: Annotated[list[Path] | None, typer.Argument(help="Videos; by default they are generated.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of model packages; default: the bundled one.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the package.")] = "blvnet-tam-mini",
    seed: Annotated[int, typer.Option(help="Seed of generated videos.")] = 20_260,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = RESULTS,
) -> None:
    """Compare the answers and write the result."""
    manifest, session = open_package(models or bundled_models(), model)
    with tempfile.TemporaryDirectory() as folder:
        chosen = clips or generate_videos(Path(folder) / "clips", CLIPS_PER_LABEL, seed)
        console = Console(stderr=True)
        answers = [
            compare(clip, manifest.clip, session) for clip in track(chosen, "comparing", console=console)
        ]
    document = summary(answers)
    facts = machine()
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in document.items()]
    text = f"{table(('our scaler against PIL, ' + model, 'value'), rows)}\n{described_machine(facts)}\n"
    write("scaler_answers", {"model": model, **document, "machine": facts}, text, results)
    console.print(text)


def summary(answers: Sequence[ScalerComparison]) -> dict[str, float]:
    """Differences between the two scalers over all videos."""
    logits = [answer.logits for answer in answers]
    return {
        "clips": len(answers),
        "pixels_mean_of_255": float(np.mean([answer.pixels for answer in answers])),
        "logits_median_relative": float(np.median(logits)),
        "logits_largest_relative": max(logits),
        "top1_changed": sum(ours != theirs for ours, theirs in (answer.top1 for answer in answers)),
    }


if __name__ == "__main__":
    typer.run(main)

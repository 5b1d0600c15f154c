"""The measurements are what they claim to be: reversal, shares, tables, and whole runs on a tiny model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import onnx
import pytest
import typer

from benchmarks import __main__ as runner
from benchmarks import stages
from benchmarks.accuracy import command as accuracy
from benchmarks.accuracy import int8 as accuracy_int8
from benchmarks.accuracy import shares
from benchmarks.accuracy.command import ClipOutcome
from benchmarks.common import report
from benchmarks.common import service_process as serving
from model_export.synthetic.labels import LABELS
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.packages.folders import bundled_models, scan_packages
from service.packages.manifest import GRAPH_FILE, read_manifest, verify_graph, write_manifest
from tests.support.clips import numbered_clip, read_numbers
from tests.support.tiny_models import TinyModel, write_package

LEFTWARDS, RIGHTWARDS = "Moving something from right to left", "Moving something from left to right"
STILL = "Holding something still"
FRAMES = 12
EVERY_FRAME = ClipSpec(FRAMES, (InputSpec("frames", Frames.ALL, 64, 64),))


def outcome(truth: str, *ranked: str) -> ClipOutcome:
    """The outcome of a service that ranks the labels in this order and gives all others a score of 0."""
    scores = dict.fromkeys(LABELS, 0.0) | {label: 1 / (2 + place) for place, label in enumerate(ranked)}
    return ClipOutcome(truth, scores, dict.fromkeys(accuracy.STAGES, 1.0))


@pytest.mark.parametrize(
    ("container", "codec", "kept"), [("mp4", "libx264", "h264"), ("webm", "libvpx-vp9", "vp9")]
)
def test_reversed_clip_shows_the_same_frames_backwards(
    tmp_path: Path, container: str, codec: str, kept: str
) -> None:
    path = tmp_path / f"clip.{container}"
    path.write_bytes(numbered_clip(frames=FRAMES, container=container, codec=codec))
    decoded = decode_video(accuracy.reversed_clip(path), EVERY_FRAME)
    assert read_numbers(decoded.inputs["frames"][0]) == list(reversed(range(FRAMES)))
    assert decoded.video.codec == kept


def test_summary_counts_right_answers_and_mistakes() -> None:
    forwards = [
        outcome(LEFTWARDS, LEFTWARDS, RIGHTWARDS),
        outcome(LEFTWARDS, RIGHTWARDS, LEFTWARDS),
        outcome(RIGHTWARDS, STILL, RIGHTWARDS, LEFTWARDS),
        outcome(STILL, STILL),
    ]
    found = accuracy.summary(forwards, [outcome(LEFTWARDS, LEFTWARDS), outcome(LEFTWARDS, STILL, LEFTWARDS)])
    assert found["top1"] == 0.5
    assert found["top5"] == 1.0
    assert found["pairs"] == {"clips": 3, "top1": pytest.approx(1 / 3), "right_of_two": pytest.approx(2 / 3)}
    assert found["reversed"] == {"clips": 2, "opposite_label": 0.5, "right_of_two": 1.0}
    assert found["labels"] == {RIGHTWARDS: 0.0, LEFTWARDS: 0.5, STILL: 1.0}
    assert {"truth": RIGHTWARDS, "answer": STILL, "clips": 1} in found["mistakes"]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    # Wilson's interval as in published tables; the plain one would be (1, 1) for the first.
    [(10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763), (0, 10, 0.0, 0.278), (510, 528, 0.947, 0.978)],
)
def test_interval_is_that_of_wilson(right: int, of: int, low: float, high: float) -> None:
    assert shares.interval(right, of) == pytest.approx((low, high), abs=6e-4)


def test_interval_of_a_difference_counts_changes_alone() -> None:
    # By hand: (4 lost + 1) and (0 gained + 1) of 102.
    assert shares.difference_interval(4, 0, 100) == pytest.approx((-0.0076, 0.0860), abs=6e-4)
    low, high = shares.difference_interval(0, 0, 100)
    assert low == -high < 0
    assert shares.difference_interval(0, 0, 10_000)[1] < high / 50


def test_comparison_shows_the_loss_by_rounding() -> None:
    truths = [LEFTWARDS, LEFTWARDS, RIGHTWARDS, STILL]
    found = accuracy_int8.comparison(
        truths, [LEFTWARDS, LEFTWARDS, STILL, STILL], [STILL, RIGHTWARDS, RIGHTWARDS, STILL]
    )
    assert (found["top1"], found["agreement"]) == (0.5, 0.25)
    assert (found["lost"], found["gained"], found["drop_points"]) == (2, 1, 25.0)


def test_table_is_markdown() -> None:
    table = report.table(("label", "top-1"), [("up", "90 %"), ("down", "80 %")])
    assert table == "| label | top-1 |\n| --- | ---: |\n| up | 90 % |\n| down | 80 % |\n"


def test_machine_has_cores_and_libraries() -> None:
    assert report.described_machine(report.machine()).startswith("Measured on ")
    assert set(report.LIBRARIES) < set(report.machine())


def test_int8_package_that_is_made_computes_in_integers(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "clip.mp4").write_bytes(numbered_clip(frames=FRAMES))
    [package] = scan_packages(bundled_models()).packages
    name = accuracy_int8.write_int8(package.folder, clips, tmp_path / "models", say=print)
    folder = tmp_path / "models" / name / str(package.version)
    verify_graph(read_manifest(folder), folder)
    tensors = onnx.load(folder / GRAPH_FILE).graph.initializer
    kernels = [item for item in tensors if len(item.dims) >= 4 and "weight" in item.name]
    assert {item.data_type for item in kernels} == {onnx.TensorProto.INT8}


def test_accuracy_is_measured_through_a_real_server(tmp_path: Path) -> None:
    accuracy.main(clips=len(LABELS), seed=5, calibration_clips=len(LABELS), out=tmp_path)
    found = json.loads((tmp_path / "accuracy.json").read_text())
    assert found["clips"] == len(found["labels"]) == len(LABELS)
    assert found["reversed"]["clips"] == len(LABELS) - 2
    assert found["top1"] > 0.8
    assert (found["model"]["name"], found["model"]["precision"]) == ("blvnet-tam-mini", "fp32")
    assert all(found["p50_ms"][stage] > 0 for stage in ("decode", "inference", "total"))
    int8 = found["int8"]
    assert (int8["model"]["name"], int8["model"]["precision"]) == ("blvnet-tam-mini-int8", "int8")
    assert int8["model"]["sha256"] != found["model"]["sha256"]
    assert int8["agreement"] > 0.8
    text = (tmp_path / "accuracy.md").read_text()
    [package] = scan_packages(bundled_models()).packages
    assert f"# Accuracy of blvnet-tam-mini {package.version} (fp32, cpu), over HTTP" in text
    assert "The same videos with blvnet-tam-mini-int8 (int8, cpu)" in text


@pytest.mark.parametrize(
    ("model", "message"), [("tiny", "is int8, but int8 needs fp32"), ("other", "no model 'other'")]
)
def test_accuracy_refuses_packages_that_are_not_float32(tmp_path: Path, model: str, message: str) -> None:
    folder = write_package(tmp_path / "models")
    write_manifest(read_manifest(folder).model_copy(update={"precision": "int8"}), folder)
    with pytest.raises(typer.BadParameter, match=message):
        accuracy.main(models=tmp_path / "models", model=model, out=tmp_path)


def test_accuracy_of_a_service_that_runs_already_leaves_int8_out(tmp_path: Path) -> None:
    write_package(tmp_path / "models", model=TinyModel(labels=LABELS))
    with serving.service(tmp_path / "models") as running:
        accuracy.main(server=running.url, clips=len(LABELS), seed=5, out=tmp_path / "results")
    found = json.loads((tmp_path / "results/accuracy.json").read_text())
    # A colour meter answers one of the first three labels, regardless of the motion.
    assert {mistake["answer"] for mistake in found["mistakes"]} <= set(LABELS[:3])
    assert (found["model"]["name"], found["int8"]) == ("tiny", None)


def test_stages_are_measured_on_a_real_server(tiny_models: Path, tmp_path: Path) -> None:
    stages.main(models=tiny_models, posts=3, starts=1, out=tmp_path)
    found = json.loads((tmp_path / "stages.json").read_text())
    p50 = found["p50_ms"]
    assert p50["client"] >= p50["total"] >= p50["decode"] > 0
    assert found["start_s"]["first_answer_s"] > found["start_s"]["ready_s"] > 0


def test_stages_clip_is_four_seconds_of_320_by_240() -> None:
    video = decode_video(stages.moving_texture(), EVERY_FRAME).video
    assert (video.width, video.height, video.frames, video.duration_s) == (320, 240, 120, 4.0)


def test_service_that_cannot_start_is_reported_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(serving.ServiceFailed, match="exited with status 1"), serving.service(tmp_path):
        pass


def test_all_benchmarks_are_found() -> None:
    assert {"accuracy", "decode", "serving_race", "stages", "study"} <= set(runner.names())
    assert not {"__init__", "__main__", "report", "serving"} & set(runner.names())


def test_benchmark_that_takes_hours_runs_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        ran.append(command[-1])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    runner.main()
    assert "benchmarks.accuracy" in ran
    assert "benchmarks.study" not in ran
    runner.main(["study"])
    assert ran[-1] == "benchmarks.study"


def test_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(typer.BadParameter, match=r"there is no nonesuch; there are: .*accuracy"):
        runner.main(["nonesuch"])

"""The measurements measure what they say: reversal, shares, tables, and whole runs on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from PIL import Image

from benchmarks import __main__ as runner
from benchmarks import accuracy, accuracy_int8, decode_clips, report, serving, shares, stages
from benchmarks import decode as decode_benchmark
from benchmarks.accuracy import Outcome
from model_export.synthetic.classes import LABELS
from service.clip.decode import decode_clip
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.manifest import GRAPH_FILE, read_manifest, verify_graph, write_manifest
from service.packages import find_packages
from service.settings import bundled_models
from tests.clips import numbered_clip, read_numbers
from tests.tiny_models import TinyModel, write_package

LEFTWARDS, RIGHTWARDS = "Moving something from right to left", "Moving something from left to right"
STILL = "Holding something still"
FRAMES = 12
EVERY_FRAME = ClipSpec(FRAMES, (InputSpec("frames", Frames.ALL, 64, 64),))


def outcome(truth: str, *ranked: str) -> Outcome:
    """What a service that ranks labels so would have said; it gave all others nothing."""
    scores = dict.fromkeys(LABELS, 0.0) | {label: 1 / (2 + place) for place, label in enumerate(ranked)}
    return Outcome(truth, scores, dict.fromkeys(accuracy.STAGES, 1.0))


@pytest.mark.parametrize(
    ("container", "codec", "kept"), [("mp4", "libx264", "h264"), ("webm", "libvpx-vp9", "vp9")]
)
def test_reversed_clip_shows_the_same_frames_backwards(
    tmp_path: Path, container: str, codec: str, kept: str
) -> None:
    path = tmp_path / f"clip.{container}"
    path.write_bytes(numbered_clip(frames=FRAMES, container=container, codec=codec))
    decoded = decode_clip(accuracy.reversed_clip(path), EVERY_FRAME)
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
    # Wilson's interval as tables give it; the plain one would be (1, 1) for the first.
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


def test_comparison_tells_what_rounding_lost() -> None:
    truths = [LEFTWARDS, LEFTWARDS, RIGHTWARDS, STILL]
    found = accuracy_int8.comparison(
        truths, [LEFTWARDS, LEFTWARDS, STILL, STILL], [STILL, RIGHTWARDS, RIGHTWARDS, STILL]
    )
    assert (found["top1"], found["agreement"]) == (0.5, 0.25)
    assert (found["lost"], found["gained"], found["drop_points"]) == (2, 1, 25.0)


def test_table_is_markdown() -> None:
    table = report.table(("label", "top-1"), [("up", "90 %"), ("down", "80 %")])
    assert table == "| label | top-1 |\n| --- | ---: |\n| up | 90 % |\n| down | 80 % |\n"


def test_machine_names_cores_and_libraries() -> None:
    assert report.described_machine(report.machine()).startswith("Measured on ")
    assert set(report.LIBRARIES) < set(report.machine())


def test_int8_package_that_is_made_computes_in_integers(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "clip.mp4").write_bytes(numbered_clip(frames=FRAMES))
    [package] = find_packages(bundled_models())
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
    assert "# Accuracy of blvnet-tam-mini 2 (fp32, cpu), over HTTP" in text
    assert "The same clips posted to blvnet-tam-mini-int8 (int8, cpu)" in text


@pytest.mark.parametrize(
    ("model", "message"), [("tiny", "is int8, int8 is made of fp32"), ("other", "no model 'other'")]
)
def test_accuracy_refuses_what_it_cannot_round(tmp_path: Path, model: str, message: str) -> None:
    folder = write_package(tmp_path / "models")
    write_manifest(replace(read_manifest(folder), precision="int8"), folder)
    with pytest.raises(typer.BadParameter, match=message):
        accuracy.main(models=tmp_path / "models", model=model, out=tmp_path)


def test_accuracy_of_a_service_that_runs_already_leaves_int8_out(tmp_path: Path) -> None:
    write_package(tmp_path / "models", model=TinyModel(labels=LABELS))
    with serving.service(tmp_path / "models") as running:
        accuracy.main(server=running.url, clips=len(LABELS), seed=5, out=tmp_path / "results")
    found = json.loads((tmp_path / "results/accuracy.json").read_text())
    # A colour meter answers one of the first three labels, whatever moves.
    assert {mistake["answer"] for mistake in found["mistakes"]} <= set(LABELS[:3])
    assert (found["model"]["name"], found["int8"]) == ("tiny", None)


def test_stages_are_measured_on_a_real_server(tiny_models: Path, tmp_path: Path) -> None:
    stages.main(models=tiny_models, posts=3, starts=1, out=tmp_path)
    found = json.loads((tmp_path / "stages.json").read_text())
    p50 = found["p50_ms"]
    assert p50["client"] >= p50["total"] >= p50["decode"] > 0
    assert found["start_s"]["first_answer_s"] > found["start_s"]["ready_s"] > 0


def test_stages_clip_is_four_seconds_of_320_by_240() -> None:
    video = decode_clip(stages.moving_texture(), EVERY_FRAME).video
    assert (video.width, video.height, video.frames, video.duration_s) == (320, 240, 120, 4.0)


def test_service_that_cannot_start_is_reported_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(serving.ServiceFailed, match="ended with status 1"), serving.service(tmp_path):
        pass


def test_all_benchmarks_are_found() -> None:
    assert {"accuracy", "serving_race", "stages"} <= set(runner.names())
    assert not {"__init__", "__main__", "decode_contenders", "report", "serving"} & set(runner.names())


def test_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(typer.BadParameter, match=r"there is no nonesuch; there are: .*accuracy"):
        runner.main(["nonesuch"])


@pytest.mark.parametrize("number", [0, 1, 299, 5399, 65535])
@pytest.mark.parametrize("side", [112, 224])
def test_numbers_in_benchmark_clips_are_read_at_either_size(number: int, side: int) -> None:
    picture = np.full((1080, 1920, 3), 118, np.uint8)
    decode_clips.stamp(picture, number)
    small = np.asarray(Image.fromarray(picture).resize((side * 16 // 9, side), Image.Resampling.BILINEAR))
    assert decode_clips.read_stamp(small) == number


def times(*wall_ms: float, **more: Any) -> dict[str, Any]:
    return {"wall_ms": list(wall_ms), "cpu_ms": [2 * value for value in wall_ms]} | more


def test_best_peer_is_the_quickest_that_is_right() -> None:
    results = {
        "ours": times(1, 2, 3),
        "wrong": times(1, 1, 1, wrong_frames=3),
        "fails": times(error="RuntimeError"),
        "slow": times(8, 9, 10),
        "quick": times(4, 4, 4),
    }
    assert decode_benchmark.best_peer(results) == "quick"
    assert decode_benchmark.ratios(results, "quick", "wall_ms") == (0.5, 0.25, 0.75)
    assert decode_benchmark.best_peer({"ours": times(1)}) is None


def test_decoding_is_measured_and_told(tmp_path: Path) -> None:
    options = {"x264-params": "keyint=10:scenecut=0:bframes=2"}
    recipe = decode_clips.Recipe(
        "tiny", "a tiny clip", 320, 240, 40, Fraction(25), "libx264", ".mp4", options
    )
    path = decode_clips.make(recipe, tmp_path)
    row = decode_benchmark.measure(recipe, path, ["ours", "PyAV", "OpenCV"], rounds=1)
    assert row["pixels_of_a_full_decode"]
    assert row["decoded"] < row["packets"] == 40
    for mode in ("alone", "two_at_once"):
        assert not any({"error", "wrong_frames"} & result.keys() for result in row[mode].values())
    document = {"clips": [row], "contenders": {"ours": "1", "PyAV": "2", "decord2": None}}
    text = decode_benchmark.as_text(document | {"machine": report.machine()})
    assert "Not installed, and so absent: decord2." in text
    assert f"| a tiny clip | {row['decoded']} of 40 | yes |" in text

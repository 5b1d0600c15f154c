"""`blvnet export`: the package, the output, and that nothing is left behind when it fails."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from model_export.checkpoints.checkpoint import read_checkpoint
from model_export.export import graphs, pipeline
from model_export.export.checks.parity import run_network
from model_export.export.rewrites.variants import GraphVariant
from model_export.networks.residual import VideoClassifier
from model_export.profile import profile_network
from service.clip.spec import ClipSpec, Sampling
from service.packages.manifest import read_manifest, sha256_of, verify_graph
from service.packages.probe_clips import PROBE, probe_clips
from tests.model_export.command import Result, blvnet
from tests.model_export.export.networks_for_export import CLASSES, small_network
from tests.model_export.exported import ARCH, LABELS, SIZE, SmallExport, write_checkpoint
from tests.support.clips import numbered_clip


@pytest.fixture
def quick(small_export: SmallExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse the graphs of `small_export` for every export: writing one takes seconds."""
    written = {
        GraphVariant.BLOCKED: onnx.load(small_export.folder / "model.onnx"),
        GraphVariant.CONV3D: onnx.load(small_export.folder / "openvino.onnx"),
    }

    def copy_of(network: VideoClassifier, clip: ClipSpec, variant: GraphVariant) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(written[variant])
        return copied

    monkeypatch.setattr(graphs, "build_graph", copy_of)


def test_package_is_complete_and_readable(small_export: SmallExport) -> None:
    assert small_export.result.status == 0, small_export.result.stderr
    files = ["MODEL_CARD.md", "model.json", "model.onnx", "openvino.onnx"]
    assert sorted(path.name for path in small_export.folder.iterdir()) == files
    manifest = read_manifest(small_export.folder)
    verify_graph(manifest, small_export.folder)
    assert (manifest.name, manifest.version, manifest.architecture) == (ARCH, 1, ARCH)
    assert manifest.labels == tuple(LABELS)
    assert manifest.precision == "fp32"
    assert [(item.name, item.frames, item.size, item.scale) for item in manifest.clip.inputs] == [
        ("little", "even", 32, 32),
        ("big", "odd", 16, 16),
    ]


def test_nothing_but_the_package_is_left_in_the_folder(small_export: SmallExport) -> None:
    assert [path.name for path in small_export.models.iterdir()] == [ARCH]
    assert [path.name for path in (small_export.models / ARCH).iterdir()] == ["1"]


def test_manifest_has_the_difference_from_pytorch(small_export: SmallExport) -> None:
    parity = read_manifest(small_export.folder).parity
    assert parity["bound"] == 1e-4
    assert 0 <= parity["logits"] < 1e-5
    assert 0 <= parity["evidence"] < 1e-5
    assert 0 <= parity["features"] < 1e-5
    assert (parity["clips"], parity["same_top1"], parity["batches"]) == (4, 4, [1, 3])


def test_manifest_has_the_multiply_accumulates(small_export: SmallExport) -> None:
    config = read_checkpoint(small_export.checkpoint).config
    assert config is not None
    assert read_manifest(small_export.folder).gmacs == pytest.approx(
        profile_network(config).total.gmacs, abs=1e-6
    )


def test_openvino_has_its_own_graph_with_the_same_accuracy(small_export: SmallExport) -> None:
    manifest = read_manifest(small_export.folder)
    (engine, graph), *others = manifest.graphs.items()
    assert (engine, graph.file, others) == ("openvino", "openvino.onnx", [])
    assert graph.sha256 == sha256_of(small_export.folder / "openvino.onnx")
    assert 0 <= max(graph.parity["logits"], graph.parity["evidence"]) < 1e-5


def test_manifest_has_pytorchs_answers_to_the_probe_clips(small_export: SmallExport) -> None:
    network, config = small_network(ARCH, SIZE)
    reference = read_manifest(small_export.folder).reference
    assert reference is not None
    assert (reference.probe, reference.bound) == (PROBE, 1e-4)
    wanted = run_network(network, config.clip_spec(), probe_clips(config.clip_spec()))[0]
    np.testing.assert_allclose(reference.logits, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3 * np.abs(wanted).max()  # the probe clips differ


def test_manifest_has_the_origin_of_the_weights(small_export: SmallExport) -> None:
    provenance = read_manifest(small_export.folder).provenance
    assert provenance["checkpoint"] == "best.pt"
    assert provenance["checkpoint_sha256"] == sha256_of(small_export.checkpoint)
    assert provenance["training"] == {"dataset": "synthetic", "step": 7}
    assert provenance["tools"]["torch"] == torch.__version__
    assert "someone" not in json.dumps(provenance)


def test_json_is_the_only_thing_on_standard_output(small_export: SmallExport) -> None:
    document = json.loads(small_export.result.stdout)
    assert document["package"] == str(small_export.folder)
    assert document["parity"] == read_manifest(small_export.folder).parity
    sizes = {path.name: path.stat().st_size for path in small_export.folder.glob("*.onnx")}
    assert document["graph_bytes"] == sum(sizes.values())
    assert small_export.result.stdout.count("\n") == 1
    assert "comparing model.onnx and openvino.onnx with PyTorch on 4 made clips" in small_export.result.stderr


@pytest.mark.usefixtures("quick")
def test_default_version_is_the_next_one(small_export: SmallExport, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / ARCH / "9").mkdir(parents=True)
    (models / ARCH / ".17.half-written").mkdir()
    result = blvnet("export", "--checkpoint", small_export.checkpoint, "--out", models)
    assert result.status == 0, result.stderr
    assert read_manifest(models / ARCH / "10").version == 10
    assert result.stdout.startswith(f"{models / ARCH / '10'}: {ARCH}, fp32, ")


@pytest.mark.usefixtures("quick")
def test_options_reach_the_manifest(small_export: SmallExport, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({f"class {index}": str(index) for index in range(CLASSES)}))
    options = ("--name", "mine", "--version", "4", "--labels", labels, "--scale", "40")
    dense = ("--sampling", "dense", "--stride", "3", "--arch", "blvnet-tam-mini", "--frames", "4")
    result = blvnet("export", "--checkpoint", small_export.checkpoint, "--out", tmp_path, *options, *dense)
    assert result.status == 0, result.stderr
    manifest = read_manifest(tmp_path / "mine" / "4")
    assert manifest.labels == tuple(f"class {index}" for index in range(CLASSES))
    assert (manifest.clip.sampling, manifest.clip.stride) == (Sampling.DENSE, 3)
    assert [item.scale for item in manifest.clip.inputs] == [40, 20]


@pytest.mark.usefixtures("quick")
def test_clip_is_that_of_the_training_by_default(tmp_path: Path) -> None:
    clip = {"sampling": "dense", "stride": 2, "inputs": [{"scale": 36}, {"scale": 18}]}
    checkpoint = write_checkpoint(tmp_path / "x.pt", {"labels": LABELS, "clip": clip})
    assert blvnet("export", "--checkpoint", checkpoint, "--out", tmp_path).status == 0
    read = read_manifest(tmp_path / ARCH / "1").clip
    assert (read.sampling, read.stride, read.inputs[0].scale) == (Sampling.DENSE, 2, 36)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("wrapped", [False, True])
def test_mirror_images_of_labels_come_from_a_file(
    wrapped: bool, small_export: SmallExport, tmp_path: Path
) -> None:
    table = {"red": "green", "green": "red", "*": "*"}
    (tmp_path / "symmetry.json").write_text(json.dumps({"mirrored": table} if wrapped else table))
    options = ("--checkpoint", small_export.checkpoint, "--symmetry", tmp_path / "symmetry.json")
    result = blvnet("export", *options, "--out", tmp_path)
    assert result.status == 0, result.stderr
    assert read_manifest(tmp_path / ARCH / "1").mirror == (1, 0, 2, 3, 4)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("mirrored", "expected"),
    [([1, 0, 2, 3, 4], (1, 0, 2, 3, 4)), ([1, 0, 2, None, 4], None), (None, None)],
)
def test_mirror_images_of_labels_come_from_the_training_data(
    mirrored: list[int | None] | None, expected: tuple[int, ...] | None, tmp_path: Path
) -> None:
    training = {"labels": LABELS} | ({} if mirrored is None else {"mirrored": mirrored})
    checkpoint = write_checkpoint(tmp_path / "x.pt", training)
    assert blvnet("export", "--checkpoint", checkpoint, "--out", tmp_path).status == 0
    assert read_manifest(tmp_path / ARCH / "1").mirror == expected


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("no JSON", "cannot be read as JSON"),
        ('{"red": "green", "green": "red"}', "does not give the mirror image of 'blue' and 2 more labels"),
        ('{"red": "green", "*": "*"}', "maps 'red' to 'green', but not 'green' back to it"),
        ('{"rot": "red", "*": "*"}', "names 'rot', which is not among the labels"),
    ],
)
def test_symmetry_file_is_checked(content: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "symmetry.json").write_text(content)
    models = tmp_path / "models"
    options = ("--checkpoint", own(tmp_path), "--symmetry", tmp_path / "symmetry.json")
    assert_fails(blvnet("export", *options, "--out", models), models, complaint)


@pytest.mark.usefixtures("quick")
def test_graph_that_the_service_would_refuse_is_refused(
    small_export: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with PyTorch passes, but the answer to the probe clips differs from the manifest's."""
    monkeypatch.setattr(pipeline, "run_network", lambda *_: (np.ones((2, CLASSES), np.float32), None, None))
    models = tmp_path / "models"
    result = blvnet("export", "--checkpoint", small_export.checkpoint, "--out", models)
    assert_fails(result, models, "model.onnx on cpu in f32: its answer to the probe clips is not PyTorch's")


@pytest.mark.usefixtures("quick")
def test_graph_is_compared_on_the_clips_of_a_folder(small_export: SmallExport, tmp_path: Path) -> None:
    for place in ("a/deep", "b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "clip.mp4").write_bytes(numbered_clip(frames=6))
    (tmp_path / "notes.txt").write_text("no clip")
    models = tmp_path / "models"
    result = blvnet(
        "export",
        "--checkpoint",
        small_export.checkpoint,
        "--out",
        models,
        "--calibration",
        tmp_path,
        "--json",
    )
    assert result.status == 0, result.stderr
    assert json.loads(result.stdout)["parity"]["clip_source"] == "real clips"


@pytest.mark.usefixtures("quick")
def test_graph_that_differs_from_the_network_is_refused(tmp_path: Path) -> None:
    network, _ = small_network(ARCH, SIZE)
    bias = network.state_dict()["fc.bias"] + 0.01
    checkpoint = write_checkpoint(tmp_path / "x.pt", {"labels": LABELS}, fc__bias=bias)
    assert_fails(
        blvnet("export", "--checkpoint", checkpoint, "--out", tmp_path / "models"),
        tmp_path / "models",
        "model.onnx differs from the PyTorch network",
    )


@pytest.mark.usefixtures("quick")
def test_network_whose_outputs_are_not_finite_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "x.pt", {"labels": LABELS}, fc__bias=torch.full((CLASSES,), math.nan)
    )
    assert_fails(
        blvnet("export", "--checkpoint", checkpoint, "--out", tmp_path / "models"),
        tmp_path / "models",
        "logits by nan",
    )


def assert_fails(result: Result, models: Path, complaint: str) -> None:
    """Check for exit status 1, one line of error after the steps, and no package folder."""
    assert result.status == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("blvnet: ")
    assert complaint in last
    assert "Traceback" not in result.stderr
    assert not models.exists()


class Evil:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code of a file was run",)


def own(folder: Path) -> Path:
    return write_checkpoint(folder / "own.pt", {"labels": LABELS})


def text(folder: Path) -> Path:
    path = folder / "readme.pt"
    path.write_text("no checkpoint")
    return path


def cut(folder: Path) -> Path:
    path = own(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def evil(folder: Path) -> Path:
    path = folder / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    return path


def incomplete(folder: Path) -> Path:
    return write_checkpoint(folder / "x.pt", {"labels": LABELS}, fc__bias=None)


def nameless(folder: Path) -> Path:
    return write_checkpoint(folder / "x.pt")


@pytest.mark.parametrize(
    ("make", "options", "complaint"),
    [
        pytest.param(text, (), "readme.pt: is not a checkpoint", id="no checkpoint"),
        pytest.param(lambda folder: folder / "gone.pt", (), "gone.pt: there is no such file", id="no file"),
        pytest.param(cut, (), "own.pt: is cut short", id="cut short"),
        pytest.param(evil, (), "cannot be read without running Python code", id="code"),
        pytest.param(incomplete, (), "missing fc.bias", id="missing tensor"),
        pytest.param(nameless, (), "add --labels FILE", id="no labels"),
        pytest.param(own, ("--arch", "blvnet-tam-50"), "holds blvnet-tam-mini-f2x2", id="other network"),
        pytest.param(own, ("--arch", "nonsense"), "unknown architecture 'nonsense'", id="no architecture"),
        pytest.param(own, ("--frames", "8"), "with frames 4, not 8", id="other frames"),
        pytest.param(own, ("--stem", "shared"), "with stem dual, not shared", id="other stem"),
        pytest.param(own, ("--blending-frames", "5"), "with taps 3, not 5", id="other taps"),
        pytest.param(own, ("--scale", "31"), "--scale 31 is less than the size, 32", id="scale"),
        pytest.param(own, ("--name", "../up"), "must be letters, digits", id="name"),
        pytest.param(own, ("--version", "2147483648"), "version must be from 1 to 2147483647", id="version"),
        pytest.param(own, ("--scale", "5000"), "--scale 5000 is more than", id="large scale"),
        pytest.param(own, ("--calibration", "/nowhere"), "no such folder of clips", id="no clips folder"),
    ],
)
def test_failure_is_one_line_and_leaves_nothing(
    make: Any, options: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    result = blvnet("export", "--checkpoint", make(tmp_path), "--out", models, *options)
    assert_fails(result, models, complaint)
    assert len(result.stderr.splitlines()) <= 2  # a line about the checkpoint may come before
    assert "code of a file was run" not in result.stdout + result.stderr


def test_labels_of_other_classes_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join([*LABELS, "one more"]))
    models = tmp_path / "models"
    result = blvnet("export", "--checkpoint", own(tmp_path), "--out", models, "--labels", labels)
    assert_fails(result, models, f"labels.txt has {CLASSES + 1} labels")


def test_clip_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    models = tmp_path / "models"
    result = blvnet("export", "--checkpoint", own(tmp_path), "--out", models, "--calibration", tmp_path)
    assert_fails(result, models, "broken.mp4: ")


def test_folder_without_clips_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    result = blvnet("export", "--checkpoint", own(tmp_path), "--out", models, "--calibration", tmp_path)
    assert_fails(result, models, "no video file in it")


def test_existing_version_is_not_overwritten(small_export: SmallExport) -> None:
    before = sha256_of(small_export.folder / "model.json")
    result = blvnet(
        "export", "--checkpoint", small_export.checkpoint, "--out", small_export.models, "--version", "1"
    )
    assert result.status == 1
    assert "already has version 1; leave --version out" in result.stderr
    assert sha256_of(small_export.folder / "model.json") == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--precision", "int8"), "int8 needs clips to measure ranges with: add --calibration"),
        (("--validation", "clips"), "it applies to --precision int8 alone"),
        (("--calibration-dataset", "ssv1"), "add --calibration DIR, the folder of the data set"),
        (("--precision", "fp8"), "fp8"),
        (("--stride", "2"), "applies to --sampling dense alone"),
        (("--version", "0"), "--version"),
        (("--stem", "none"), "--stem"),
    ],
)
def test_bad_usage_is_exit_status_2(options: tuple[str, str], complaint: str, tmp_path: Path) -> None:
    result = blvnet("export", "--checkpoint", "x.pt", "--out", tmp_path / "models", *options)
    assert result.status == 2
    assert complaint in result.stderr
    assert not (tmp_path / "models").exists()

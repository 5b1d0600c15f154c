"""Packages in float16 and int8: their graphs, their differences from PyTorch, and when export refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper
from torch import Tensor

from model_export.export import graphs, pipeline
from model_export.export.calibration import Clip
from model_export.export.checks.parity import run_network
from model_export.export.int8 import quantize
from model_export.export.onnx_graph import build_graph
from model_export.export.precision import BOUNDS, Precision
from model_export.export.rewrites.variants import GraphVariant
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from service.packages.manifest import Manifest, read_manifest
from service.packages.probe_clips import probe_clips
from tests.model_export.command import Result, blvnet
from tests.model_export.datasets import layouts
from tests.model_export.export.networks_for_export import small_network
from tests.model_export.exported import ARCH, LABELS, SIZE, write_checkpoint
from tests.support.clips import ClipRecipe, encode, numbered_clip

FILES = ("model.onnx", "openvino.onnx")
CLIPS = 6
ANY_ACCURACY = ("--max-drop", "100", "--min-agreement", "0")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named after labels, with clips in them that use all pixel values, as the probe clips do."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(CLIPS):
        place = folder / LABELS[index % 2]
        place.mkdir(exist_ok=True)
        squares = np.random.default_rng(index).integers(0, 256, (6 + index, 8, 8, 3)).astype(np.uint8)
        images = list(squares.repeat(8, axis=1).repeat(8, axis=2))
        (place / f"{index}.mp4").write_bytes(encode(images, ClipRecipe(width=64, height=64)))
    return folder


@pytest.fixture(scope="module", autouse=True)
def build_each_float_graph_once() -> Iterator[None]:
    """Every export here is of the same network, and differs only after its float graphs."""
    made: dict[GraphVariant, onnx.ModelProto] = {}

    def cached(network: VideoClassifier, clip: ClipSpec, variant: GraphVariant) -> onnx.ModelProto:
        if variant not in made:
            made[variant] = build_graph(network, clip, variant)
        copy = onnx.ModelProto()
        copy.CopyFrom(made[variant])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "build_graph", cached)
        yield


@pytest.fixture(scope="module")
def fp16_package(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("fp16"), clips, Precision.FP16)


@pytest.fixture(scope="module")
def int8_package(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported with lenient limits: random weights give near ties."""
    return exported(tmp_path_factory.mktemp("int8"), clips, Precision.INT8, *ANY_ACCURACY)


@pytest.fixture(params=["fp16_package", "int8_package"])
def package(request: pytest.FixtureRequest) -> Path:
    """A package in each precision."""
    folder = request.getfixturevalue(request.param)
    assert isinstance(folder, Path)
    return folder


def exported(folder: Path, clips: Path, precision: Precision, *options: str) -> Path:
    result = export(folder, clips, precision, *options)
    assert result.status == 0, result.stderr
    return folder / "models" / ARCH / "1"


def classifier() -> Tensor:
    """Positive weights, which add up features as a trained classifier does.

    Features are not negative. Random signs would cancel the features, but not their rounding.
    """
    return small_network(ARCH, SIZE)[0].fc.weight.detach().abs()


def export(folder: Path, clips: Path, precision: Precision, *options: str) -> Result:
    checkpoint = write_checkpoint(folder / "x.pt", {"labels": LABELS}, fc__weight=classifier())
    out = ("--out", folder / "models", "--precision", precision)
    return blvnet("export", "--checkpoint", checkpoint, *out, "--calibration", clips, *options, "--json")


def graph(package: Path, file: str) -> onnx.ModelProto:
    return onnx.load(package / file)


def precision_of(package: Path) -> Precision:
    return Precision(read_manifest(package).precision)


@pytest.mark.parametrize("file", FILES)
def test_weights_have_the_packages_precision(package: Path, file: str) -> None:
    model = graph(package, file)
    kinds = Counter(tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) > 100)
    if precision_of(package) is Precision.FP16:
        assert set(kinds) == {TensorProto.FLOAT16}
    else:
        # All but the classifier's; biases are summed in 32 bits.
        assert kinds[TensorProto.INT8] > 30
        operators = {node.op_type for node in model.graph.node if node.input[1:2] and "fc" in node.input[1]}
        assert operators == {"Gemm"}


def test_int8_weights_are_scaled_by_channel_and_pixels_taken_as_they_are(int8_package: Path) -> None:
    for file in FILES:
        model = graph(int8_package, file)
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        nodes = {name: node for node in model.graph.node for name in node.output}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        scales = [values[nodes[node.input[1]].input[1]] for node in convolutions]
        weights = [
            numpy_helper.to_array(values[nodes[node.input[1]].input[0]]).astype(int) for node in convolutions
        ]
        # 7 bits: sums of two products in 16 bits, as AVX2 makes them, cannot saturate.
        assert max(int(np.abs(weight).max()) for weight in weights) == 64
        assert all(
            scale.dims[0] == values[nodes[node.input[1]].input[0]].dims[0]  # one per channel
            for node, scale in zip(convolutions, scales, strict=True)
        )
        entering = [node for node in model.graph.node if "pixel.scale" in node.input]
        assert entering
        assert {node.op_type for node in entering} == {"DequantizeLinear"}
        assert not any(node.op_type == "Cast" for node in model.graph.node)
        assert float(numpy_helper.to_array(values["pixel.scale"])) == 1.0


def test_outputs_stay_float32(package: Path) -> None:
    for file in FILES:
        outputs = graph(package, file).graph.output
        assert {value.type.tensor_type.elem_type for value in outputs} == {TensorProto.FLOAT}


def test_both_graphs_are_within_the_bounds(package: Path) -> None:
    manifest = read_manifest(package)
    bounds = BOUNDS[precision_of(package)]
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        assert (parity["bound"], parity["evidence_bound"]) == (bounds.logits, bounds.moments)
        # Without any difference, nothing would have been rounded.
        assert 1e-5 < parity["logits"] <= bounds.logits
        assert 1e-5 < parity["evidence"] <= bounds.moments
        assert 1e-5 < parity["features"] <= bounds.moments


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_answer_the_probe_within_the_references_bound(package: Path, engine: str) -> None:
    network, config = small_network(ARCH, SIZE)
    network.fc.weight.data = classifier()
    manifest = read_manifest(package)
    assert manifest.reference is not None
    assert manifest.reference.bound == BOUNDS[precision_of(package)].probes
    wanted = run_network(network, config.clip_spec(), probe_clips(config.clip_spec()))[0]
    np.testing.assert_allclose(manifest.reference.logits, wanted, rtol=1e-5, atol=1e-6)
    found = answers(package, manifest, engine)
    assert np.abs(found - wanted).max() <= manifest.reference.bound * np.abs(wanted).max()


def answers(
    package: Path, manifest: Manifest, engine: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    feed = probe_clips(manifest.clip)
    if engine == "onnxruntime":
        (logits,) = onnxruntime.InferenceSession(package / "model.onnx").run(["logits"], feed)
        return np.asarray(logits)
    path = package / manifest.graphs["openvino"].file
    return np.asarray(openvino.Core().compile_model(str(path), "CPU")(feed)["logits"])


def test_int8_has_an_accuracy_comparison_and_fp16_has_none(package: Path) -> None:
    manifest = read_manifest(package)
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        if precision_of(package) is Precision.FP16:
            assert "accuracy" not in parity
        else:
            accuracy = parity["accuracy"]
            assert (accuracy["clips"], accuracy["labelled"], accuracy["max_drop"]) == (CLIPS, CLIPS, 100.0)
            assert 0 <= accuracy["agreement"] <= 100


def test_int8_calibrates_on_the_training_split_and_is_judged_on_the_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = layouts.as_something_v1(tmp_path / "data", LABELS)
    measured = []
    real = quantize

    def watched(model: onnx.ModelProto, calibration: Sequence[Clip]) -> onnx.ModelProto:
        measured.append(len(calibration))
        return real(model, calibration)

    monkeypatch.setattr(graphs, "quantize", watched)
    dataset = ("--calibration-dataset", "ssv1", *ANY_ACCURACY)
    manifest = read_manifest(exported(tmp_path, data, Precision.INT8, *dataset))
    assert measured == [2 * len(LABELS)] * len(FILES)
    assert manifest.parity["clip_source"] == "real clips"
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        assert (parity["accuracy"]["clips"], parity["accuracy"]["labelled"]) == (len(LABELS), len(LABELS))


def test_validation_split_with_other_labels_is_refused(tmp_path: Path) -> None:
    data = layouts.as_something_v1(tmp_path / "data", LABELS[::-1])
    result = export(tmp_path, data, Precision.INT8, "--calibration-dataset", "ssv1")
    assert result.status == 1
    assert "label 0 is 'red' in the network and 'nothing' in the data set" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "models").exists()


def test_int8_with_other_labels_than_float_is_refused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate reads the clips of --validation. The classes of the rounded graphs are shifted by one."""

    def unchecked(*_: Any) -> dict[str, Any]:
        """The comparison with PyTorch would find the change first."""
        return {}

    others = tmp_path / "others" / "no label"
    others.mkdir(parents=True)
    (others / "clip.mp4").write_bytes(numbered_clip(frames=9))
    real = quantize

    def shifted(model: onnx.ModelProto, calibration: Sequence[Clip]) -> onnx.ModelProto:
        rounded = real(model, calibration)
        (weight,) = (tensor for tensor in rounded.graph.initializer if tensor.name.endswith("fc.weight"))
        moved = np.roll(numpy_helper.to_array(weight), 1, axis=0)
        weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
        return rounded

    monkeypatch.setattr(graphs, "quantize", shifted)
    monkeypatch.setattr(pipeline, "check_parity", unchecked)
    result = export(
        tmp_path, clips, Precision.INT8, "--validation", str(others.parent), "--min-agreement", "1"
    )
    assert result.status == 1
    assert "model.onnx gives 0.0 % of 1 clips the label of the float graph" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "models").exists()

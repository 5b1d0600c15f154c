"""Packages in float16 and int8: what is in their graphs, how near they are, and when there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper
from torch import nn

from model_export import graphs
from model_export.calibration import Clip
from model_export.graph import build_graph
from model_export.parity import probe_logits
from model_export.precision import BOUNDS, Precision
from model_export.quantize import quantize
from model_export.serving.form import Form
from service.clip.probe import probe_clips
from service.clip.spec import ClipSpec
from service.manifest import Manifest, read_manifest
from tests.clips import numbered_clip
from tests.model_export.command import Result, blvnet
from tests.model_export.datasets import layouts
from tests.model_export.exported import ARCH, LABELS, SIZE, write_checkpoint
from tests.model_export.networks_for_export import small_network

FILES = ("model.onnx", "openvino.onnx")
CLIPS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named after labels, with clips in them."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(CLIPS):
        place = folder / LABELS[index % 2]
        place.mkdir(exist_ok=True)
        (place / f"{index}.mp4").write_bytes(numbered_clip(frames=6 + index))
    return folder


@pytest.fixture(scope="module", autouse=True)
def each_float_graph_is_made_once() -> Iterator[None]:
    """Every export here is of the same network, and what is to be seen is behind its float graphs."""
    made: dict[Form, onnx.ModelProto] = {}

    def remembered(network: nn.Module, clip: ClipSpec, form: Form) -> onnx.ModelProto:
        if form not in made:
            made[form] = build_graph(network, clip, form)
        copy = onnx.ModelProto()
        copy.CopyFrom(made[form])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "build_graph", remembered)
        yield


@pytest.fixture(scope="module")
def fp16_package(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("fp16"), clips, Precision.FP16)


@pytest.fixture(scope="module")
def int8_package(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judged leniently: random weights give near ties."""
    return exported(tmp_path_factory.mktemp("int8"), clips, Precision.INT8, "--max-drop", "100")


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


def export(folder: Path, clips: Path, precision: Precision, *options: str) -> Result:
    checkpoint = write_checkpoint(folder / "x.pt", {"labels": LABELS})
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
        assert all(
            scale.dims[0] == values[nodes[node.input[1]].input[0]].dims[0]  # one a channel
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


def test_both_graphs_are_as_near_to_pytorch_as_promised(package: Path) -> None:
    manifest = read_manifest(package)
    bounds = BOUNDS[precision_of(package)]
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        assert (parity["bound"], parity["evidence_bound"]) == (bounds.logits, bounds.evidence)
        # Rounding does leave a trace, or it was not done.
        assert 1e-5 < parity["logits"] <= bounds.logits
        assert 1e-5 < parity["evidence"] <= bounds.evidence


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_answer_the_probe_within_the_references_bound(package: Path, engine: str) -> None:
    network, config = small_network(ARCH, SIZE)
    manifest = read_manifest(package)
    assert manifest.reference is not None
    wanted = probe_logits(network, config.clip_spec())
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


def test_int8_says_what_rounding_costs_and_fp16_need_not(package: Path) -> None:
    manifest = read_manifest(package)
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        if precision_of(package) is Precision.FP16:
            assert "accuracy" not in parity
        else:
            accuracy = parity["accuracy"]
            assert (accuracy["clips"], accuracy["labelled"], accuracy["max_drop"]) == (CLIPS, CLIPS, 100.0)
            assert 0 <= accuracy["agreement"] <= 100


def test_int8_is_measured_on_the_training_split_of_a_data_set_and_judged_by_its_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = layouts.as_something_v1(tmp_path / "data", LABELS)
    measured = []
    real = quantize

    def watched(model: onnx.ModelProto, calibration: Sequence[Clip]) -> onnx.ModelProto:
        measured.append(len(calibration))
        return real(model, calibration)

    monkeypatch.setattr(graphs, "quantize", watched)
    dataset = ("--calibration-dataset", "ssv1", "--max-drop", "100")
    manifest = read_manifest(exported(tmp_path, data, Precision.INT8, *dataset))
    assert measured == [2 * len(LABELS)] * len(FILES)
    assert manifest.parity["clip_source"] == "real clips"
    for parity in (manifest.parity, manifest.graphs["openvino"].parity):
        assert (parity["accuracy"]["clips"], parity["accuracy"]["labelled"]) == (len(LABELS), len(LABELS))


def test_data_set_of_other_labels_judges_nothing(tmp_path: Path) -> None:
    data = layouts.as_something_v1(tmp_path / "data", LABELS[::-1])
    result = export(tmp_path, data, Precision.INT8, "--calibration-dataset", "ssv1")
    assert result.status == 1
    assert "label 0 is 'red' to the network and 'nothing' in the data set" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "models").exists()


def test_int8_that_answers_otherwise_is_no_package(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate asks the clips of --validation, and stops: the rounded graphs' classes are moved on by one."""
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
    monkeypatch.setattr(graphs, "prove", lambda *_: None)  # it would find out first
    result = export(tmp_path, clips, Precision.INT8, "--validation", str(others.parent))
    assert result.status == 1
    assert "model.onnx gives 0.0 % of 1 clips the float graph's label" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "models").exists()

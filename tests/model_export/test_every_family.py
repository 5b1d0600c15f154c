"""Every family from labelled videos to a served package, with even feature maps and with odd ones.

An export compares its graphs with PyTorch in the precision of the package. With odd maps the graphs of the
other precisions are compared too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from model_export.checkpoints.checkpoint import load_network, read_checkpoint
from model_export.export import graphs as graph_files
from model_export.export.calibration import synthetic_clips
from model_export.export.checks.graph_rules import check_graph
from model_export.export.checks.parity import CLIPS, check_parity, run_network
from model_export.export.float16 import to_float16
from model_export.export.onnx_graph import OUTPUTS, build_graph
from model_export.export.plan import VARIANTS
from model_export.export.precision import BOUNDS, Precision
from model_export.export.rewrites.variants import GraphVariant
from model_export.networks.config import MINI
from model_export.networks.registry import architectures
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from service.packages.probe_clips import probe_clips
from tests.model_export.command import blvnet
from tests.support.clips import ClipRecipe, encode
from tests.support.server import running_server

# The lowest and highest value of each colour channel in the videos of a label. Videos to calibrate int8 with
# use all values. With only two labels the logits would be close to 0, and int8's rounding relatively large.
LABELS = {
    "red": ((128, 0, 0), (256, 128, 128)),
    "green": ((0, 128, 0), (128, 256, 128)),
    "blue": ((0, 0, 128), (128, 128, 256)),
    "grey": ((64, 64, 64), (192, 192, 192)),
}
ALL_VALUES = ((0, 0, 0), (256, 256, 256))
FAMILIES = [name for name in architectures() if name.endswith(f"-{MINI}")]
EVEN, ODD = 64, 48  # 48 pixels give feature maps of side 3, which the big-little networks enlarge from side 2
PRECISION = {EVEN: Precision.FP32, ODD: Precision.INT8}
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}

Graphs = dict[GraphVariant, onnx.ModelProto]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are not faster with a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """The float graphs that the test exports, for reuse."""
    made: Graphs = {}

    def recorded(network: VideoClassifier, clip: ClipSpec, variant: GraphVariant) -> onnx.ModelProto:
        graph = build_graph(network, clip, variant)
        made[variant] = onnx.ModelProto()
        made[variant].CopyFrom(graph)
        return graph

    monkeypatch.setattr(graph_files, "build_graph", recorded)
    return made


def write_textures(folder: Path, count: int, low: Sequence[int], high: Sequence[int]) -> None:
    """Videos of moving coloured squares; `low` and `high` are the ends of the values of each channel."""
    folder.mkdir(parents=True)
    for index in range(count):
        squares = np.random.default_rng(index).integers(low, high, (16, 16, 3)).astype(np.uint8)
        scene = squares.repeat(8, axis=0).repeat(8, axis=1)
        images = [np.roll(scene, 3 * step, axis=1)[:64, :64] for step in range(4)]
        (folder / f"{index}.mp4").write_bytes(encode(images, ClipRecipe(width=64, height=64)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of four labels, and videos to calibrate int8 with."""
    root = tmp_path_factory.mktemp("data")
    for label, (low, high) in LABELS.items():
        write_textures(root / "train" / label, 4, low, high)
        write_textures(root / "val" / label, 1, low, high)
    write_textures(root / "calibration", 12, *ALL_VALUES)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the packages of all families."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("size", PRECISION)
@pytest.mark.parametrize("arch", FAMILIES)
def test_family_is_trained_exported_and_evaluated(
    arch: str, size: int, data: Path, models: Path, graphs: Graphs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    dataset = ("--dataset", "folder", "--data", data)
    network = ("--arch", arch, "--frames", 4, "--size", size)
    short = ("--epochs", 6, "--batch-size", 4, "--no-augmentation", "--log-every", 1)
    trained = blvnet("train", *dataset, *network, *short, "--workers", 0, "--no-cached", "--out", run)
    assert trained.status == 0, trained.stderr
    checkpoint = run / "last.pt"
    judged = blvnet("evaluate", *dataset, "--split", "val", "--checkpoint", checkpoint, "--json")
    assert judged.status == 0, judged.stderr
    precision = PRECISION[size]
    name = f"{arch}-{size}-{precision}"
    options: tuple[object, ...] = ("--name", name, "--precision", precision)
    if precision is Precision.INT8:
        clips = ("--calibration", data / "calibration", "--validation", data / "val")
        options = (*options, *clips, "--max-drop", 100, "--min-agreement", 0)
    exported = blvnet("export", "--checkpoint", checkpoint, "--out", models, *options)
    assert exported.status == 0, exported.stderr
    judged = blvnet("evaluate", *dataset, "--split", "val", "--models", models, "--model", name, "--json")
    assert judged.status == 0, judged.stderr
    assert json.loads(judged.stdout)["clips"] == len(LABELS)
    if precision is Precision.FP32:  # the weights are restored from the graph, to train or export it again
        assert read_checkpoint(models / name).folded
    else:
        compare_in_float(checkpoint, graphs, tmp_path)


def compare_in_float(checkpoint: Path, graphs: Graphs, folder: Path) -> None:
    """Compare both float graphs with PyTorch, the second one in OpenVINO too."""
    network, config, _ = load_network(checkpoint)
    for key, value in network.state_dict().items():  # a branch times zero would hide a mistake in it
        assert value.any() or key.endswith((".bias", ".running_mean")), key
    spec = config.clip_spec()
    graphs = {**graphs, GraphVariant.BLOCKED: build_graph(network, spec, GraphVariant.BLOCKED)}
    assert set(graphs) == set(GraphVariant)
    clips, probes = synthetic_clips(spec, CLIPS), probe_clips(spec)
    expected = run_network(network, spec, probes)
    for precision in (Precision.FP32, Precision.FP16):
        files = [folder / f"{precision}.onnx", folder / f"{precision}.openvino.onnx"]
        for file, variant in zip(files, (VARIANTS[precision], GraphVariant.CONV3D), strict=True):
            graph = onnx.ModelProto()
            graph.CopyFrom(graphs[variant])
            if precision is Precision.FP16:
                graph = to_float16(graph)
            check_graph(graph, spec)
            file.write_bytes(graph.SerializeToString())
        parities = check_parity(network, files, spec, clips, "made clips", precision)
        assert all(parity.features > 0 for parity in parities.values())
        served = openvino.Core().compile_model(str(files[1]), "CPU", FLOAT32)(probes)
        bounds = BOUNDS[precision]
        for output, values, bound in zip(
            OUTPUTS, expected, (bounds.logits, bounds.moments, bounds.moments), strict=True
        ):
            assert np.abs(served[output] - values).max() <= bound * np.abs(values).max(), output


def test_service_serves_every_family(data: Path, models: Path) -> None:
    names = {path.name for path in models.iterdir()}  # the packages that the tests above have exported
    assert names
    video = (data / "val/red/0.mp4").read_bytes()
    # The export has checked each graph on each engine.
    with running_server(models, inference_threads=1, provider="cpu") as server:
        for name in sorted(names):
            answer = server.post(video, model=name)
            assert answer.status_code == 200, answer.text
            assert {item["label"] for item in answer.json()["predictions"]} == set(LABELS)

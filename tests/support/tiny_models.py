"""Tiny model packages with predictable answers, built with onnx alone.

The network is a colour meter: for every moment, the evidence for `red`, `green` and `blue` is the mean of
that channel over the moment's frames (all inputs), from 0 to `GAIN`. So the top label is the clip's strongest
colour, and the evidence over time follows its colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic_core import to_jsonable_python

from service.clip.spec import ClipSpec, Frames, InputSpec
from service.packages.manifest import (
    GRAPH_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    BaseReference,
    GraphFile,
    Manifest,
    Reference,
    clip_fields,
    read_manifest,
    sha256_of,
)
from service.packages.probe_clips import PROBE, probe_clips
from tests.support.clips import ClipRecipe, encode

LABELS = ("red", "green", "blue")
GAIN = 10.0
OPSET = 17
IR_VERSION = 8
TWO_STREAMS = ClipSpec(
    frames=8, inputs=(InputSpec("little", Frames.EVEN, 32, 36), InputSpec("big", Frames.ODD, 16, 18))
)
ONE_STREAM = ClipSpec(frames=8, inputs=(InputSpec("frames", Frames.ALL, 32, 36),))


@dataclass(frozen=True)
class TinyModel:
    """What to build.

    Attributes:
        spec: the network's clip; moments are the frames of its first input.
        labels: any number of labels; classes beyond the three colours get no evidence.
        work: size of a matrix product that makes every run slow without changing the result.
        endless: whether a strong colour makes a run loop forever.
        classes: number of outputs of the graph, if it differs from the number of labels.
        dtype: of the inputs.
        batch: length of the batch axis; a name leaves it free.
        gain: the evidence of a fully saturated colour.
        features: whether the graph has the output `features`, here the sum of the mean colours of the inputs.
    """

    spec: ClipSpec = TWO_STREAMS
    labels: Sequence[str] = LABELS
    work: int = 0
    endless: bool = False
    classes: int | None = None
    dtype: int = TensorProto.UINT8
    batch: int | str = "N"
    gain: float = GAIN
    features: bool = False


def write_package(
    models: Path,
    name: str = "tiny",
    version: int = 1,
    model: TinyModel | None = None,
    engines: Mapping[str, TinyModel] | None = None,
    **manifest: Any,
) -> Path:
    """Write `models/name/version` and return the folder.

    Args:
        models: folder of all packages.
        name: of the model.
        version: of the package.
        model: description of `model.onnx`.
        engines: descriptions of separate graphs, by engine.
        manifest: overrides fields of model.json, valid or not.
    """
    model = model or TinyModel()
    folder = models / name / str(version)
    folder.mkdir(parents=True)
    onnx.save(graph(model), folder / GRAPH_FILE)
    for engine, own in (engines or {}).items():
        onnx.save(graph(own), folder / f"{engine}.onnx")
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "architecture": "colour-meter",
        **clip_fields(model.spec),
        "labels": tuple(model.labels),
        "mirror": tuple(range(len(model.labels))),
        "precision": "fp32",
        "sha256": sha256_of(folder / GRAPH_FILE),
        "graphs": {engine: _graph_file(folder / f"{engine}.onnx") for engine in engines or {}},
        "provenance": {"made_by": "tests.support.tiny_models"},
    }
    document = Manifest(**fields).to_json() | to_jsonable_python(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")
    return folder


def reference(model: TinyModel | None = None, bound: float = 1e-4) -> Reference:
    """The network's answers to the probe clips, computed with numpy."""
    model = model or TinyModel()
    clips = probe_clips(model.spec)
    means = np.mean([clip.mean(axis=(1, 2, 3)) for clip in clips.values()], axis=0)
    logits = np.zeros((len(means), len(model.labels)))
    logits[:, :3] = means * model.gain / 255
    return Reference(probe=PROBE, bound=bound, logits=tuple(tuple(row) for row in logits.tolist()))


def _graph_file(path: Path) -> GraphFile:
    return GraphFile(file=path.name, sha256=sha256_of(path))


def graph(model: TinyModel) -> onnx.ModelProto:
    """The colour meter as an ONNX graph."""
    classes = len(model.labels) if model.classes is None else model.classes
    moments = model.spec.inputs[0].shape(model.spec.frames)[0]
    nodes = [node for item in model.spec.inputs for node in _meter(item, moments)]
    means = [f"{item.name}_mean" for item in model.spec.inputs]
    nodes += [
        helper.make_node("Sum", means, ["colours"]),
        *_counting("colours", "features", model),
        helper.make_node("MatMul", ["features", "to_classes"], ["evidence_sum"]),
        helper.make_node("Add", ["evidence_sum", "nothing"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence"], ["logits"], axes=[1], keepdims=0),
    ]
    features = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [model.batch, moments, 3])
        for _ in range(model.features)
    ]
    to_classes = np.zeros((3, classes), np.float32)
    np.fill_diagonal(to_classes, model.gain / 255 / len(means))
    return helper.make_model(
        helper.make_graph(
            [*_work(model.work), *nodes],
            "colour_meter",
            [
                helper.make_tensor_value_info(
                    item.name, model.dtype, [model.batch, *item.shape(model.spec.frames)]
                )
                for item in model.spec.inputs
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, [model.batch, classes]),
                helper.make_tensor_value_info("evidence", TensorProto.FLOAT, [model.batch, moments, classes]),
                *features,
            ],
            [numpy_helper.from_array(to_classes, "to_classes"), *_work_constants(model.work)],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def _meter(item: InputSpec, moments: int) -> list[onnx.NodeProto]:
    """Mean colour of each moment, `(N, moments, 3)`, of one input."""
    return [
        helper.make_node("Cast", [item.name], [f"{item.name}_float"], to=TensorProto.FLOAT),
        helper.make_node(
            "ReduceMean", [f"{item.name}_float"], [f"{item.name}_mean"], axes=[2, 3], keepdims=0
        ),
    ]


def _work(size: int) -> list[onnx.NodeProto]:
    """Compute the tensor `nothing` (zero), through the matrix product if there is one."""
    if not size:
        return []
    return [
        helper.make_node("RandomUniform", [], ["noise"], shape=[size, size], seed=1.0),
        helper.make_node("MatMul", ["noise", "noise"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]


def _counting(given: str, passed_on: str, model: TinyModel) -> list[onnx.NodeProto]:
    """Pass a tensor through; an endless model loops if a value exceeds one half."""
    if not model.endless:
        return [helper.make_node("Identity", [given], [passed_on])]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5 * 255 * len(model.spec.inputs)])
    far = helper.make_tensor("far", TensorProto.INT64, [], [1 << 60])
    flag, value = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("on", TensorProto.BOOL, []), ("kept", TensorProto.FLOAT, None))
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("Identity", ["kept"], ["kept_out"]),
        ],
        "count",
        [helper.make_tensor_value_info("step", TensorProto.INT64, []), flag, value],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept_out", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("Constant", [], ["half"], value=half),
        helper.make_node("Constant", [], ["far"], value=far),
        helper.make_node("ReduceMax", [given], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "half"], ["is_strong"]),
        helper.make_node("Cast", ["is_strong"], ["once"], to=TensorProto.INT64),
        helper.make_node("Mul", ["once", "far"], ["steps"]),
        helper.make_node("Loop", ["steps", "", given], [passed_on], body=body),
    ]


def _work_constants(size: int) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array(0, np.float32), "zero" if size else "nothing")]


def colour_clip(*colours: tuple[int, int, int], frames: int = 24, **recipe: Any) -> bytes:
    """Encode a video of uniform colours in sequence, each for an equal share of the frames."""
    size = {"width": 96, "height": 64} | recipe
    images = [np.full((size["height"], size["width"], 3), colour, np.uint8) for colour in colours]
    shown = (images[number * len(images) // frames] for number in range(frames))
    return encode(shown, ClipRecipe(frames=frames, **size))


HUES = ("red", "cold")


def write_head(
    models: Path,
    on: Path,
    name: str = "hues",
    version: int = 1,
    *,
    weights: NDArray[np.float32] | None = None,
    labels: Sequence[str] = HUES,
    temperature: float = 1.0,
    **manifest: Any,
) -> Path:
    """Write the taught package `models/name/version` on a tiny base with features, and return the folder.

    Args:
        models: folder of all packages.
        on: folder of the base's package.
        name: of the model.
        version: of the package.
        weights: `(Q, 3, C)`; by default `red` is red above the other colours in each half of the clip.
        labels: C labels.
        temperature: divisor of the logits.
        manifest: overrides fields of model.json, valid or not.
    """
    if weights is None:
        weights = np.zeros((2, 3, len(labels)), np.float32)
        weights[:, 0, 0] = weights[:, 1:, 1] = 0.01
    folder = models / name / str(version)
    folder.mkdir(parents=True)
    bias = np.zeros(weights.shape[2], np.float32)
    np.savez(folder / HEAD_FILE, weights=weights, bias=bias, temperature=np.float64(temperature))
    of_base = read_manifest(on)
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "architecture": of_base.architecture,
        **clip_fields(of_base.clip),
        "labels": tuple(labels),
        "precision": of_base.precision,
        "sha256": sha256_of(folder / HEAD_FILE),
        "base": BaseReference(name=of_base.name, version=of_base.version, sha256=of_base.sha256),
        "threshold": 0.6,
    }
    document = Manifest(**fields).to_json() | to_jsonable_python(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")
    return folder

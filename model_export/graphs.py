"""The graph files of a package: one for onnxruntime, one for OpenVINO. Written, proved, and judged.

network ──> form of an engine ──> float32 graph ──> the package's precision ──> file ──> proof
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from model_export.accuracy_gate import Accuracy, Answer, compare_answers
from model_export.calibration import Clip, Stored, labelled_clips
from model_export.graph import LOGITS, build_graph, check_graph
from model_export.half import to_half
from model_export.parity import Parity, answers, open_graph, prove
from model_export.precision import Precision
from model_export.progress import Say
from model_export.quantize import quantize
from model_export.serving.form import Form
from model_export.shared_weights import share_weights
from service.clip.spec import ClipSpec
from service.manifest import GRAPH_FILE

OPENVINO_FILE = "openvino.onnx"
PROGRESS_LINES = 20
# The form of model.onnx, which is onnxruntime's. OpenVINO's is the same in every precision.
FORMS = {
    Precision.FP32: Form.BLOCKED,
    Precision.FP16: Form.CHANNELS_LAST,
    Precision.INT8: Form.CHANNELS_LAST,
}


@dataclass(frozen=True)
class Source:
    """What graphs are made from.

    Attributes:
        network: normalised streams -> evidence.
        clip: what the network wants of a clip.
        precision: of the graphs.
        proof: clips to prove them with; see `parity.CLIPS`.
        proof_name: what those clips are.
        calibration: clips to measure ranges with, for int8.
    """

    network: nn.Module
    clip: ClipSpec
    precision: Precision
    proof: Sequence[Clip]
    proof_name: str
    calibration: Sequence[Clip] = ()


@dataclass(frozen=True)
class Judgement:
    """Clips to judge int8 graphs by, and the points of top-1 that may be lost."""

    clips: Stored
    max_drop: float


def write_graphs(source: Source, folder: Path, judgement: Judgement | None, say: Say) -> dict[str, Parity]:
    """Write both files into `folder`; file name -> how near it is to the PyTorch network.

    Raises:
        GraphError: a graph breaks a promise of the package.
        ParityError: a graph differs from the network by more than its precision may.
        AccuracyError: an int8 graph loses more than it may.
    """
    parities = {}
    reference = answers(source.network, source.clip, source.proof)
    for file, form in ((GRAPH_FILE, FORMS[source.precision]), (OPENVINO_FILE, Form.VOLUME)):
        say(f"writing {file}" + (", measuring ranges" if source.precision is Precision.INT8 else ""))
        model = _in_precision(build_graph(source.network, source.clip, form), source)
        check_graph(model, source.clip)
        if file != GRAPH_FILE:
            share_weights(model, folder / GRAPH_FILE)
        (folder / file).write_bytes(model.SerializeToString())
        say(f"comparing {file} with PyTorch on {len(source.proof)} {source.proof_name}")
        parities[file] = prove(
            reference, folder / file, source.clip, source.proof, source.proof_name, source.precision
        )
    if judgement is None:
        return parities
    accuracies = _judge(source, folder, judgement, say)
    return {file: parity.judged(accuracies[file]) for file, parity in parities.items()}


def _in_precision(graph: onnx.ModelProto, source: Source) -> onnx.ModelProto:
    match source.precision:
        case Precision.FP32:
            return graph
        case Precision.FP16:
            return to_half(graph)
        case Precision.INT8:
            return quantize(graph, source.calibration)


def _judge(source: Source, folder: Path, judgement: Judgement, say: Say) -> dict[str, Accuracy]:
    """Both rounded graphs beside the float graph of the network, clip by clip."""
    say("writing the graph in float to compare with")
    graph = build_graph(source.network, source.clip, Form.BLOCKED)
    found = compare_answers(
        _answer(graph.SerializeToString()),
        {file: _answer(folder / file) for file in (GRAPH_FILE, OPENVINO_FILE)},
        labelled_clips(judgement.clips, source.clip, partial(_say_progress, say)),
        judgement.max_drop,
    )
    for file, accuracy in found.items():
        say(f"{file}: {accuracy.described()}")
        accuracy.check(file)
    return found


def _say_progress(say: Say, done: int, total: int) -> None:
    if done * PROGRESS_LINES // total > (done - 1) * PROGRESS_LINES // total:
        say(f"judging: {done} of {total} clips")


def _answer(graph: Path | bytes) -> Answer:
    session: onnxruntime.InferenceSession = open_graph(graph)

    def logits(inputs: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        (found,) = session.run([LOGITS], dict(inputs))
        return np.asarray(found, np.float32)

    return logits

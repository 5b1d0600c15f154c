"""The graph files of a package: each variant of the network, in the package's precision.

network ──> variant of an engine ──> float32 graph ──> float16 or int8 ──> rules ──> file
"""

from __future__ import annotations

from pathlib import Path

from model_export.export.checks.graph_rules import check_graph
from model_export.export.float16 import to_float16
from model_export.export.int8 import quantize
from model_export.export.onnx_graph import build_graph
from model_export.export.plan import ExportPlan
from model_export.export.precision import Precision
from model_export.export.shared_weights import share_weights
from model_export.progress import ProgressReporter
from service.packages.manifest import GRAPH_FILE


def write_graphs(plan: ExportPlan, folder: Path, progress: ProgressReporter) -> bytes:
    """Write the plan's graphs into `folder`; the result is `model.onnx` in float32.

    Raises:
        BlvnetError: a video for the ranges of int8 cannot be decoded, or a graph breaks a rule of
            `check_graph`.
    """
    calibration = plan.sources.calibration_clips(plan.clip, progress)
    float_graphs: list[bytes] = []
    for graph in plan.graphs:
        progress.step(f"writing {graph.file}" + (", measuring ranges" if calibration else ""))
        model = build_graph(plan.network, plan.clip, graph.variant)
        float_graphs.append(model.SerializeToString())
        if plan.precision is Precision.FP16:
            model = to_float16(model)
        elif plan.precision is Precision.INT8:
            model = quantize(model, calibration)
        check_graph(model, plan.clip)
        if graph.file != GRAPH_FILE:
            share_weights(model, folder / GRAPH_FILE)
        (folder / graph.file).write_bytes(model.SerializeToString())
    return float_graphs[0]

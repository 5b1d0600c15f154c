"""From a checkpoint to a model package.

request ──> plan ──> clips ──> graphs ──> parity ──> accuracy gate ──> manifest ──> served once ──> package
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import onnxruntime

from model_export.export.card import CARD_FILE, model_card
from model_export.export.checks.accuracy_gate import judge_accuracy
from model_export.export.checks.parity import CLIPS, check_parity, run_network
from model_export.export.checks.serving_check import check_serving
from model_export.export.graphs import write_graphs
from model_export.export.onnx_graph import OPSET
from model_export.export.plan import ExportRequest, plan_export
from model_export.export.precision import BOUNDS
from model_export.metrics import Metric
from model_export.profile import GIGA, count_macs
from model_export.progress import ProgressReporter
from service.packages.manifest import (
    GraphFile,
    Manifest,
    Reference,
    clip_fields,
    sha256_of,
    write_manifest,
)
from service.packages.probe_clips import PROBE, probe_clips
from service.packages.staged_package import staged_package

GMACS_DIGITS = 6
TOOLS = ("blvnet-serve", "torch", "onnx", "onnxscript")  # onnxruntime has several distribution names
# Fields of a training run that the manifest contains. The folders of the machine are left out.
TRAINING_FACTS = ("dataset", "step", *(metric.best_key for metric in Metric))


@dataclass(frozen=True)
class ExportedPackage:
    """A package that was written: its folder, manifest, and sizes in bytes and parameters."""

    folder: Path
    manifest: Manifest
    graph_bytes: int
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet export --json`."""
        return {
            "package": str(self.folder),
            "name": self.manifest.name,
            "version": self.manifest.version,
            "architecture": self.manifest.architecture,
            "precision": self.manifest.precision,
            "classes": len(self.manifest.labels),
            "parameters": self.parameters,
            "graph_bytes": self.graph_bytes,
            "sha256": self.manifest.sha256,
            "parity": self.manifest.parity,
        }


def export(request: ExportRequest, progress: ProgressReporter) -> ExportedPackage:
    """Export a checkpoint.

    Raises:
        BlvnetError: something is wrong with the checkpoint, the labels, the clips or the destination, or a
            graph does not compute what the network does. Then no package is left behind.
    """
    plan = plan_export(request, progress)
    network, clip, checkpoint = plan.network, plan.clip, plan.checkpoint
    with staged_package(plan.models, plan.name, plan.version) as folder:
        clips, kind = plan.sources.parity_clips(clip, CLIPS, progress)
        float_graph = write_graphs(plan, folder, progress)

        files = [folder / graph.file for graph in plan.graphs]
        names = " and ".join(path.name for path in files)
        progress.step(f"comparing {names} with PyTorch on {CLIPS} {kind}")
        parities = check_parity(network, files, clip, clips, kind, plan.precision)
        reference, _, _ = run_network(network, clip, probe_clips(clip))
        measured = {file: parity.to_json() for file, parity in parities.items()}
        if (validation := plan.sources.validation) is not None:
            accuracies = judge_accuracy(float_graph, files, validation, clip, plan.limits, progress)
            for file, accuracy in accuracies.items():
                measured[file]["accuracy"] = accuracy.to_json()

        primary, *others = (
            GraphFile(file=path.name, sha256=sha256_of(path), parity=measured[path.name]) for path in files
        )
        engines = [graph.engine for graph in plan.graphs if graph.engine is not None]
        training = checkpoint.training
        facts = {fact: training[fact] for fact in TRAINING_FACTS if fact in training}
        if isinstance(training.get("init"), dict):  # the report of initialise_from
            facts["init"] = training["init"]["source"].rpartition("/")[2]
        manifest = Manifest.create(
            name=plan.name,
            version=plan.version,
            architecture=plan.config.architecture,
            **clip_fields(clip),
            labels=plan.labels,
            mirror=plan.mirror,
            scores=plan.scores,
            precision=plan.precision.value,
            sha256=primary.sha256,
            gmacs=round(count_macs(network, clip) / GIGA, GMACS_DIGITS),
            parity=primary.parity,
            graphs=dict(zip(engines, others, strict=True)),
            reference=Reference(
                probe=PROBE,
                bound=BOUNDS[plan.precision].probes,
                logits=tuple(tuple(float(f"{value:.7g}") for value in row) for row in reference),
            ),
            provenance={
                "checkpoint": checkpoint.path.name,
                "checkpoint_sha256": sha256_of(checkpoint.path),
                "layout": checkpoint.naming.layout.value,
                "opset": OPSET,
                "tools": {tool: version_of(tool) for tool in TOOLS}
                | {"onnxruntime": onnxruntime.__version__},
                **({"training": facts} if facts else {}),
            },
        )
        write_manifest(manifest, folder)
        parameters = sum(weight.numel() for weight in network.parameters())
        card = model_card(manifest, parameters, plan.evaluation, plan.notes)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        progress.step("loading the package as the service does")
        check_serving(folder, progress)
        graph_bytes = sum(path.stat().st_size for path in files)
    package = plan.models / plan.name / str(plan.version)
    return ExportedPackage(package, manifest, graph_bytes, parameters)

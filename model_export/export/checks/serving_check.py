"""The last check of a package before it is published: each graph is loaded and run as the service does.

The comparison with PyTorch (`parity`) runs both graphs in onnxruntime. A server may load them on another
engine, and it refuses a package whose answers to the probe clips are not PyTorch's. So the service's own
checks run here: signature, a black clip and the probe clips, on every installed CPU engine.
"""

from __future__ import annotations

from pathlib import Path

from model_export.progress import ProgressReporter
from service.engines.providers import ENGINES, arithmetics, installed_providers, open_session
from service.errors import PackageError, ProviderUnavailable
from service.models.verify import check_session, reference_clips
from service.packages.manifest import read_manifest, verify_graph

PROVIDERS = ("cpu", "openvino")


def check_serving(folder: Path, progress: ProgressReporter) -> None:
    """Load every graph of a package in onnxruntime, and OpenVINO's graph in OpenVINO.

    Raises:
        PackageError: the manifest is not valid, or a graph fails a check of the service.
        InferenceFailed: a graph does not run.
    """
    manifest = read_manifest(folder)
    verify_graph(manifest, folder)
    clips = reference_clips(manifest)
    for provider in PROVIDERS:
        if provider not in installed_providers():
            progress.message(f"{provider} is not installed, so the package is not checked on it")
            continue
        graphs = manifest.graph_files() if provider == "cpu" else (manifest.graph(ENGINES[provider]),)
        for graph in graphs:
            for arithmetic in arithmetics(provider, manifest.precision):
                try:
                    session = open_session(folder / graph.file, provider, threads=1, arithmetic=arithmetic)
                except ProviderUnavailable:
                    continue  # this processor does not support the arithmetic
                try:
                    check_session(session, manifest, clips)
                except PackageError as exc:
                    raise PackageError(f"{graph.file} on {provider} in {arithmetic}: {exc.message}") from exc
                finally:
                    session.close()

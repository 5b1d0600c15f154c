"""From the settings to a session: the only place that knows which engine serves which provider.

Engines are imported when they are wanted, so that one need not have them all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from service.errors import ProviderUnavailable
from service.manifest import Manifest
from service.runtime.config import AUTO, RuntimeConfig
from service.runtime.session import Arithmetic, Session

# The order in which `auto` tries them, and takes the first that works where it cannot compare: GPUs before
# CPUs, and onnxruntime, by which packages are proved when they are exported, before OpenVINO.
PROVIDERS = ("cuda", "tensorrt", "cpu", "openvino")
ENGINES = {"cuda": "onnxruntime", "tensorrt": "onnxruntime", "cpu": "onnxruntime", "openvino": "openvino"}
DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}
MISSING = {
    "onnxruntime": "onnxruntime is not installed; install blvnet-serve[cpu],"
    " or blvnet-serve[gpu] for NVIDIA GPUs",
    "openvino": "openvino is not installed; install blvnet-serve[openvino]",
}

# onnxruntime keeps each of these in a library of its own, beside the one with all the rest.
LIBRARIES = {"cuda": "libonnxruntime_providers_cuda.so", "tensorrt": "libonnxruntime_providers_tensorrt.so"}

# A package's precision is a promise of how near it is to the network, and these keep it. Half precision is
# whichever half the processor has; float32, where it has neither.
HALVES = {"openvino": (Arithmetic.BF16, Arithmetic.F16, Arithmetic.F32)}


@dataclass(frozen=True)
class Candidate:
    """One way to run a package."""

    provider: str
    arithmetic: Arithmetic

    @property
    def engine(self) -> str:
        """The engine that has the provider."""
        return ENGINES[self.provider]

    def __str__(self) -> str:
        return f"{self.provider}-{self.arithmetic}"


def candidates(provider: str, precision: str) -> tuple[Candidate, ...]:
    """Ways to run a package of that precision on `provider`, or on all that are installed for `auto`.

    Raises:
        ProviderUnavailable: the provider is not installed, or none is.
    """
    if provider == AUTO:
        chosen = installed_providers()
        if not chosen:
            raise ProviderUnavailable(f"{MISSING['onnxruntime']}, or blvnet-serve[openvino]")
    elif provider in ENGINES:
        require(provider)
        chosen = (provider,)
    else:
        raise ProviderUnavailable(f"provider {provider!r} is not known")
    return tuple(
        Candidate(name, arithmetic) for name in chosen for arithmetic in arithmetics(name, precision)
    )


def installed_providers() -> tuple[str, ...]:
    """Providers whose engine is installed and was built with them; starting one can still fail.

    Nothing is imported for it: an engine that does not serve need not be in memory.
    """
    return tuple(provider for provider in PROVIDERS if _is_installed(provider))


def require(provider: str) -> None:
    """Check that a provider's engine is installed, without importing it.

    Raises:
        ProviderUnavailable: it is not; the message says what to install.
    """
    engine = ENGINES[provider]
    if importlib.util.find_spec(engine) is None:
        raise ProviderUnavailable(MISSING[engine])


def engine_versions() -> Mapping[str, str]:
    """Version of each engine that is installed, without importing it."""
    return {
        engine: found for engine in DISTRIBUTIONS if (found := _version(DISTRIBUTIONS[engine])) is not None
    }


def open_session(
    graph: Path,
    provider: str,
    threads: int,
    *,
    arithmetic: Arithmetic = Arithmetic.F32,
    streams: int = 1,
    max_batch: int | None = None,
    cache_dir: Path | None = None,
) -> Session:
    """Load a graph on `cpu`, `cuda`, `tensorrt` or `openvino`, and on nothing else.

    Args:
        graph: path of the .onnx file.
        provider: where.
        threads: of one run, where it runs on the CPU.
        arithmetic: what to compute in.
        streams: runs to prepare for side by side.
        max_batch: largest batch that TensorRT prepares for; as large as batches may be, if None.
        cache_dir: for what takes long to build; nothing is kept, if None.

    Raises:
        ProviderUnavailable: the provider or its arithmetic cannot be had.
        PackageError: the graph cannot be loaded.
    """
    if provider not in ENGINES:
        raise ProviderUnavailable(f"provider {provider!r} is not known")
    require(provider)
    if provider == "openvino":
        from service.runtime.openvino_session import OpenVinoSession

        return OpenVinoSession(graph, arithmetic, threads, streams)
    from service.runtime.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(
        graph,
        provider,
        threads,
        streams=streams,
        arithmetic=arithmetic,
        max_batch=max_batch,
        cache_dir=cache_dir,
    )


def open_candidate(candidate: Candidate, folder: Path, manifest: Manifest, config: RuntimeConfig) -> Session:
    """Load the graph that a package has for a candidate's engine; see `open_session`."""
    graph = manifest.graph(candidate.engine)
    return open_session(
        folder / graph.file,
        candidate.provider,
        config.threads,
        arithmetic=candidate.arithmetic,
        streams=config.streams,
        max_batch=config.max_batch,
        cache_dir=engine_cache(candidate, config.cache_dir, graph.sha256),
    )


def arithmetics(provider: str, precision: str) -> tuple[Arithmetic, ...]:
    """What a provider may compute a package of that precision in; not every processor has them all."""
    match precision:
        case "fp16":
            return HALVES.get(provider, (Arithmetic.F16,))
        case "int8":
            return (Arithmetic.INT8,)
        case _:
            return (Arithmetic.F32,)


def _is_installed(provider: str) -> bool:
    engine = importlib.util.find_spec(ENGINES[provider])
    if engine is None:
        return False
    if provider not in LIBRARIES:
        return True
    return any(
        Path(folder, "capi", LIBRARIES[provider]).exists()
        for folder in engine.submodule_search_locations or ()
    )


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None


def engine_cache(candidate: Candidate, cache_dir: Path | None, digest: str) -> Path | None:
    """A folder for what TensorRT builds of one graph; None where it cannot be made."""
    if cache_dir is None or candidate.provider != "tensorrt":
        return None
    folder = cache_dir / "tensorrt" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder

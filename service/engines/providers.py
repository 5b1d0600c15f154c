"""Providers and their engines: listing the installed ones and opening sessions on them.

Engines are imported on first use, since not all of them need to be installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from service.engines.session import Arithmetic, Session
from service.errors import ProviderUnavailable
from service.packages.manifest import Manifest


class Provider(StrEnum):
    """Where inference runs. `auto` measures the installed providers and takes the best."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"


# Order in which `auto` tries providers. If it cannot compare them, it takes the first one that works: GPUs
# before CPUs, and onnxruntime, with which the export verified the package, before OpenVINO.
PROVIDERS = ("cuda", "tensorrt", "cpu", "openvino")
ENGINES = {"cuda": "onnxruntime", "tensorrt": "onnxruntime", "cpu": "onnxruntime", "openvino": "openvino"}
DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}
MISSING = {
    "onnxruntime": "onnxruntime is not installed; in a checkout: pip install '.[cpu]',"
    " or '.[gpu]' for NVIDIA GPUs",
    "openvino": "openvino is not installed; in a checkout: pip install '.[openvino]'",
}

# Shared libraries that are present only in builds of onnxruntime with the provider.
LIBRARIES = {"cuda": "libonnxruntime_providers_cuda.so", "tensorrt": "libonnxruntime_providers_tensorrt.so"}

# Arithmetics that keep the accuracy of a float16 package, for providers with a choice. The processor
# determines which ones work.
FLOAT16_ARITHMETICS = {"openvino": (Arithmetic.BF16, Arithmetic.F16, Arithmetic.F32)}


@dataclass(frozen=True)
class EngineConfig:
    """How to load and run graphs.

    Attributes:
        provider: A value of `Provider`.
        threads: Threads of one run on the CPU.
        concurrency: Concurrent runs to prepare for.
        max_batch: Largest batch on a GPU; None measures which size is worthwhile.
        cache_dir: Folder for engine selections and TensorRT engines; None disables these caches.
    """

    provider: str = Provider.AUTO
    threads: int = 1
    concurrency: int = 1
    max_batch: int | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A provider and an arithmetic that a package can run with."""

    provider: str
    arithmetic: Arithmetic

    @property
    def engine(self) -> str:
        """The provider's engine."""
        return ENGINES[self.provider]

    def __str__(self) -> str:
        return f"{self.provider}-{self.arithmetic}"


def candidates(provider: str, precision: str) -> tuple[Candidate, ...]:
    """Candidates for a package of `precision` on `provider`, or on all installed providers for `auto`.

    Raises:
        ProviderUnavailable: the provider is not installed, or no provider is installed for `auto`.
    """
    if provider == Provider.AUTO:
        names = installed_providers()
        if not names:
            raise ProviderUnavailable(f"{MISSING['onnxruntime']}, or '.[openvino]'")
    elif provider in ENGINES:
        require(provider)
        names = (provider,)
    else:
        raise ProviderUnavailable(f"unknown provider {provider!r}")
    return tuple(Candidate(name, arithmetic) for name in names for arithmetic in arithmetics(name, precision))


def installed_providers() -> tuple[str, ...]:
    """Providers whose engine is installed and includes them. Starting one can still fail.

    Imports no engine, so that unused engines take no memory.
    """
    installed = []
    for provider in PROVIDERS:
        engine = importlib.util.find_spec(ENGINES[provider])
        if engine is None:
            continue
        library, folders = LIBRARIES.get(provider), engine.submodule_search_locations or ()
        if library is None or any(Path(folder, "capi", library).exists() for folder in folders):
            installed.append(provider)
    return tuple(installed)


def require(provider: str) -> None:
    """Check that a provider's engine is installed, without importing it.

    Raises:
        ProviderUnavailable: it is missing. The message names the package to install.
    """
    engine = ENGINES[provider]
    if importlib.util.find_spec(engine) is None:
        raise ProviderUnavailable(MISSING[engine])


def engine_versions() -> Mapping[str, str]:
    """Distribution and version of each installed engine, without importing it."""
    versions: dict[str, str] = {}
    for engine, distributions in DISTRIBUTIONS.items():
        for name in distributions:
            with suppress(PackageNotFoundError):
                versions.setdefault(engine, f"{name} {version(name)}")
    return versions


def open_session(
    graph: Path,
    provider: str,
    threads: int,
    *,
    arithmetic: Arithmetic = Arithmetic.F32,
    concurrency: int = 1,
    max_batch: int | None = None,
    cache_dir: Path | None = None,
) -> Session:
    """Load a graph on exactly this provider, without falling back to another.

    Args:
        graph: Path of the .onnx file.
        provider: `cpu`, `cuda`, `tensorrt` or `openvino`.
        threads: Threads of one run on the CPU.
        arithmetic: Number format of the computation.
        concurrency: Concurrent runs to prepare for.
        max_batch: Largest batch that TensorRT prepares for; `MAX_BATCH` if None.
        cache_dir: Folder for TensorRT engines; None disables this cache.

    Raises:
        ProviderUnavailable: the provider or the arithmetic is not available.
        PackageError: the graph cannot be loaded.
    """
    if provider not in ENGINES:
        raise ProviderUnavailable(f"unknown provider {provider!r}")
    require(provider)
    if provider == "openvino":
        from service.engines.openvino_session import OpenVinoSession

        return OpenVinoSession(graph, arithmetic, threads, concurrency)
    from service.engines.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(
        graph,
        provider,
        threads,
        concurrency=concurrency,
        arithmetic=arithmetic,
        max_batch=max_batch,
        cache_dir=cache_dir,
    )


def open_candidate(candidate: Candidate, folder: Path, manifest: Manifest, config: EngineConfig) -> Session:
    """Load a package's graph for the candidate's engine; see `open_session`."""
    graph = manifest.graph(candidate.engine)
    return open_session(
        folder / graph.file,
        candidate.provider,
        config.threads,
        arithmetic=candidate.arithmetic,
        concurrency=config.concurrency,
        max_batch=config.max_batch,
        cache_dir=engine_cache(candidate, config.cache_dir, graph.sha256),
    )


def arithmetics(provider: str, precision: str) -> tuple[Arithmetic, ...]:
    """Arithmetics with which a provider keeps a package's precision. A processor may not support all."""
    match precision:
        case "fp16":
            return FLOAT16_ARITHMETICS.get(provider, (Arithmetic.F16,))
        case "int8":
            return (Arithmetic.INT8,)
        case _:
            return (Arithmetic.F32,)


def engine_cache(candidate: Candidate, cache_dir: Path | None, digest: str) -> Path | None:
    """Folder for the TensorRT engines of one graph; None for other providers, or if it cannot be created."""
    if cache_dir is None or candidate.provider != "tensorrt":
        return None
    folder = cache_dir / "tensorrt" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder

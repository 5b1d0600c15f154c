"""CUDA and TensorRT: their options, and their answers where a GPU is available."""

from __future__ import annotations

from ctypes.util import find_library
from pathlib import Path

import onnxruntime
import pytest

from service.engines.onnxruntime_gpu import provider_options
from service.engines.providers import Candidate, EngineConfig, engine_cache
from service.engines.session import Arithmetic, Tensor
from service.errors import ProviderUnavailable
from service.models.engine_selection import open_package
from service.packages.manifest import GRAPH_FILE, read_manifest
from tests.support.tiny_models import reference, write_package

INPUTS = (
    Tensor("little", "uint8", (None, 8, 224, 224, 3)),
    Tensor("big", "uint8", (None, 8, 112, 112, 3)),
)

on_a_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs an NVIDIA GPU and blvnet-serve[gpu]",
)
HAS_TENSORRT = find_library("nvinfer") is not None
with_tensorrt = pytest.mark.skipif(not HAS_TENSORRT, reason="needs an NVIDIA GPU and TensorRT's libraries")


@pytest.mark.accelerator
@on_a_gpu
@pytest.mark.parametrize("provider", ["cuda", pytest.param("tensorrt", marks=with_tensorrt)])
def test_gpu_agrees_with_the_reference(tmp_path: Path, provider: str) -> None:
    folder = write_package(tmp_path, reference=reference())
    manifest = read_manifest(folder)
    found = open_package(folder, manifest, EngineConfig(provider, max_batch=4, cache_dir=tmp_path / "cache"))
    assert found.session.runtime.provider == provider
    assert found.concurrent is None
    assert found.batches is not None
    assert found.batches.sizes == (1, 2, 4)
    found.close()


@pytest.mark.accelerator
@on_a_gpu
def test_missing_tensorrt_is_refused_and_skipped_by_auto(tmp_path: Path) -> None:
    if HAS_TENSORRT:
        pytest.skip("TensorRT is installed here")
    folder = write_package(tmp_path, reference=reference())
    manifest = read_manifest(folder)
    with pytest.raises(ProviderUnavailable, match=r"provider tensorrt cannot be started: .*TensorRT"):
        open_package(folder, manifest, EngineConfig("tensorrt"))
    found = open_package(folder, manifest, EngineConfig("auto"))
    assert "cuda-f32" in found.measured_ms
    assert "tensorrt-f32" not in found.measured_ms
    found.close()


@pytest.mark.parametrize(("arithmetic", "allowed"), [(Arithmetic.F32, "0"), (Arithmetic.F16, "1")])
def test_float32_is_not_rounded_to_tf32(arithmetic: Arithmetic, allowed: str) -> None:
    cuda, cpu = provider_options("cuda", arithmetic, (), 8, None)
    assert (cuda["use_tf32"], cpu) == (allowed, {})


def test_tensorrt_builds_and_caches_one_engine_for_all_batch_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    tensorrt, cuda, _ = provider_options("tensorrt", Arithmetic.F16, INPUTS, 8, tmp_path)
    assert tensorrt["trt_profile_min_shapes"] == "little:1x8x224x224x3,big:1x8x112x112x3"
    assert tensorrt["trt_profile_max_shapes"] == "little:8x8x224x224x3,big:8x8x112x112x3"
    assert tensorrt["trt_engine_cache_path"] == tensorrt["trt_timing_cache_path"] == str(tmp_path)
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_int8_enable"], cuda["use_tf32"]) == ("1", "0", "1")


def test_tensorrt_works_without_a_cache() -> None:
    tensorrt, *_ = provider_options("tensorrt", Arithmetic.INT8, INPUTS, 8, None)
    assert not any("cache" in name for name in tensorrt)


def test_each_graph_has_a_separate_folder_for_built_engines(tmp_path: Path) -> None:
    tensorrt = Candidate("tensorrt", Arithmetic.F32)
    digest = read_manifest(write_package(tmp_path / "models")).sha256
    folder = engine_cache(tensorrt, tmp_path / "cache", digest)
    assert folder == tmp_path / "cache" / "tensorrt" / digest
    assert folder.is_dir()
    assert engine_cache(Candidate("cpu", Arithmetic.F32), tmp_path / "cache", digest) is None
    assert engine_cache(tensorrt, tmp_path / "models" / "tiny" / "1" / GRAPH_FILE, digest) is None

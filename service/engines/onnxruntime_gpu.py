"""onnxruntime on NVIDIA GPUs: options of the CUDA and TensorRT providers, and runs with IO binding.

Reference of the options:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.engines.session import Arithmetic, Inputs, Tensor

DEVICE = "cuda"


def prepare_libraries() -> None:
    """Load the CUDA and cuDNN libraries that are installed as Python packages."""
    onnxruntime.preload_dlls()


def provider_options(
    provider: str,
    arithmetic: Arithmetic,
    inputs: Sequence[Tensor],
    max_batch: int,
    cache_dir: Path | None,
) -> list[dict[str, str]]:
    """Options for `provider` and its fallbacks, in the order of `onnxruntime_session.PROVIDERS`."""
    match provider:
        case "cuda":
            return [_cuda(arithmetic), {}]
        case "tensorrt":
            return [_tensorrt(arithmetic, inputs, max_batch, cache_dir), _cuda(arithmetic), {}]
        case _:
            return [{}]


def _cuda(arithmetic: Arithmetic) -> dict[str, str]:
    return {
        # TF32 has the precision of float16, which is lower than a float32 package promises.
        "use_tf32": "0" if arithmetic is Arithmetic.F32 else "1",
        # The default benchmarks every algorithm for each new batch size, which can stall a request for
        # seconds.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Grow by the size needed, not to the next power of two: other processes may use the GPU.
        "arena_extend_strategy": "kSameAsRequested",
    }


def _tensorrt(
    arithmetic: Arithmetic, inputs: Sequence[Tensor], max_batch: int, cache_dir: Path | None
) -> dict[str, str]:
    if arithmetic is Arithmetic.F32:
        # The TensorRT provider has no option for this. NVIDIA's libraries read the variable when they load.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    options = {
        "trt_fp16_enable": str(int(arithmetic is Arithmetic.F16)),
        "trt_int8_enable": str(int(arithmetic is Arithmetic.INT8)),
        # One engine for all batch sizes. Without a profile every larger batch would rebuild it, which takes
        # minutes.
        "trt_profile_min_shapes": _shapes(inputs, 1),
        "trt_profile_opt_shapes": _shapes(inputs, 1),
        "trt_profile_max_shapes": _shapes(inputs, max_batch),
    }
    if cache_dir is not None:
        for kind in ("engine", "timing"):
            options[f"trt_{kind}_cache_enable"] = "1"
            options[f"trt_{kind}_cache_path"] = str(cache_dir)
    return options


def _shapes(inputs: Sequence[Tensor], batch: int) -> str:
    """Format shapes for TensorRT: `little:1x8x224x224x3,big:1x8x112x112x3`."""
    return ",".join(f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape[1:])))}" for tensor in inputs)


def run_on_device(
    session: onnxruntime.InferenceSession, inputs: Inputs, outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """Run with IO binding: one copy of each input to the GPU, one copy of each output back.

    Each call has its own binding, so threads may call it concurrently.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), DEVICE, 0)
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, DEVICE)
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())

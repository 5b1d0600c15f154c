"""What onnxruntime has to be told to use an NVIDIA GPU well: options of CUDA and TensorRT, and IO binding.

The options are those of
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

from service.runtime.session import Arithmetic, Inputs, Tensor

DEVICE = "cuda"


def prepare_libraries() -> None:
    """Load CUDA and cuDNN where they came as Python packages."""
    onnxruntime.preload_dlls()


def provider_options(
    provider: str,
    arithmetic: Arithmetic,
    inputs: Sequence[Tensor],
    max_batch: int,
    cache_dir: Path | None,
) -> list[dict[str, str]]:
    """Options for `provider` and those below it, in the order of `onnxruntime_session.PROVIDERS`."""
    match provider:
        case "cuda":
            return [_cuda(arithmetic), {}]
        case "tensorrt":
            return [_tensorrt(arithmetic, inputs, max_batch, cache_dir), _cuda(arithmetic), {}]
        case _:
            return [{}]


def _cuda(arithmetic: Arithmetic) -> dict[str, str]:
    return {
        # TF32 has float16's digits: a float32 package promises more.
        "use_tf32": "0" if arithmetic is Arithmetic.F32 else "1",
        # The default tries every algorithm at each new batch size, which would stall a request for seconds.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Not the next power of two: the GPU may be shared.
        "arena_extend_strategy": "kSameAsRequested",
    }


def _tensorrt(
    arithmetic: Arithmetic, inputs: Sequence[Tensor], max_batch: int, cache_dir: Path | None
) -> dict[str, str]:
    if arithmetic is Arithmetic.F32:
        # TensorRT has no option of onnxruntime's for this; NVIDIA's libraries read it when they are loaded.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    options = {
        "trt_fp16_enable": _flag(arithmetic is Arithmetic.F16),
        "trt_int8_enable": _flag(arithmetic is Arithmetic.INT8),
        # One engine for all batches; without a profile it is built again, for minutes, at each larger one.
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
    """`little:1x8x224x224x3,big:1x8x112x112x3`."""
    return ",".join(f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape[1:])))}" for tensor in inputs)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def run_on_device(
    session: onnxruntime.InferenceSession, inputs: Inputs, outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """One run by IO binding: each input goes to the device in one copy, the few outputs come back in another.

    The binding belongs to this run, so several threads may run at once.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), DEVICE, 0)
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, DEVICE)
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())

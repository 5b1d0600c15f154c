"""Sessions of OpenVINO on the CPU, in float32, bfloat16, float16 or int8."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from service.engines.memory import ShrinkPolicy, return_freed_memory
from service.engines.session import (
    Arithmetic,
    EngineInfo,
    InferenceFailed,
    Inputs,
    Outputs,
    Tensor,
    batch_length,
)
from service.errors import PackageError, ProviderUnavailable
from service.packages.manifest import EVIDENCE, FEATURES, LOGITS, OUTPUTS

DEVICE = "CPU"
DTYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}
# Precision of the graph's float layers. An int8 graph has few of these, and no other type is faster for them.
FLOAT_TYPES = {
    Arithmetic.F32: openvino.Type.f32,
    Arithmetic.BF16: openvino.Type.bf16,
    Arithmetic.F16: openvino.Type.f16,
    Arithmetic.INT8: openvino.Type.f32,
}
# Device capability that an arithmetic requires. Without it OpenVINO would silently use float32.
REQUIRED_CAPABILITIES = {Arithmetic.BF16: "BF16", Arithmetic.F16: "FP16"}

# OpenVINO raises these for a graph that it cannot read, compile or run.
ENGINE_ERRORS = (RuntimeError, ValueError)


class OpenVinoSession:
    """A graph in OpenVINO in exactly one arithmetic."""

    def __init__(self, graph: Path, arithmetic: Arithmetic, threads: int, concurrency: int) -> None:
        """Load `graph`.

        Args:
            graph: Path of the .onnx file.
            arithmetic: Number format of the computation.
            threads: Threads of one run.
            concurrency: Number of concurrent runs.

        Raises:
            ProviderUnavailable: this processor does not support the arithmetic.
            PackageError: the graph cannot be loaded.
        """
        core = process_core()
        _require(core, arithmetic)
        self._compiled = _compile(core, graph, arithmetic, threads, concurrency)
        self._requests: LifoQueue[openvino.InferRequest] = LifoQueue()
        self._shrink_policy = ShrinkPolicy()
        self.inputs = _tensors(self._compiled.inputs)
        self.outputs = _tensors(self._compiled.outputs)
        has_features = any(tensor.name == FEATURES for tensor in self.outputs)
        self._output_names = OUTPUTS if has_features else (LOGITS, EVIDENCE)
        self.runtime = EngineInfo(
            engine="openvino",
            version=openvino.get_version().partition("-")[0],
            provider="openvino",
            arithmetic=arithmetic,
            threads=self._compiled.get_property(properties.inference_num_threads) // concurrency,
            concurrency=self._compiled.get_property(properties.num_streams),
        )

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch; see `Session`. Concurrent runs use separate inference requests."""
        if self._shrink_policy.should_shrink(batch_length(inputs)):
            with suppress(*ENGINE_ERRORS):  # OpenVINO refuses while another run is in progress
                self._compiled.release_memory()
            return_freed_memory()
        try:
            request = self._requests.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(
                {name: np.ascontiguousarray(array) for name, array in inputs.items()}, share_inputs=True
            )
            outputs = Outputs(*(request.get_tensor(name).data.copy() for name in self._output_names))
        except ENGINE_ERRORS as exc:
            raise InferenceFailed(f"OpenVINO could not run the graph: {_last_line(exc)}") from exc
        self._requests.put(request)  # a failed request is not used again
        return outputs

    def close(self) -> None:
        """Free the compiled graph, its requests and their memory."""
        del self._requests, self._compiled


@cache
def process_core() -> openvino.Core:
    """Return the `openvino.Core` of this process, which is never unloaded.

    On processors with AMX the CPU plugin gives the thread that loads it an alternate signal stack and unmaps
    it in whichever thread unloads the plugin. The next signal with a handler would then end the process.
    """
    core = openvino.Core()
    # Mapped weights would end the process with SIGBUS when the file is overwritten in place, as `cp` does.
    core.set_property({properties.enable_mmap: False})
    return core


def _require(core: openvino.Core, arithmetic: Arithmetic) -> None:
    required = REQUIRED_CAPABILITIES.get(arithmetic)
    capabilities = core.get_property(DEVICE, properties.device.capabilities)
    if required is not None and required not in capabilities:
        raise ProviderUnavailable(
            f"this processor does not support {arithmetic} (only {', '.join(capabilities)})"
        )


def _compile(
    core: openvino.Core, graph: Path, arithmetic: Arithmetic, threads: int, concurrency: int
) -> openvino.CompiledModel:
    config: dict[Any, Any] = {
        properties.inference_num_threads: threads * concurrency,
        properties.num_streams: concurrency,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: FLOAT_TYPES[arithmetic],
    }
    try:
        compiled = core.compile_model(core.read_model(graph), DEVICE, config)
    except ENGINE_ERRORS as exc:
        raise PackageError(f"OpenVINO cannot load the graph: {_last_line(exc)}") from exc
    check_in_use(compiled, arithmetic)
    return compiled


def check_in_use(compiled: openvino.CompiledModel, arithmetic: Arithmetic) -> None:
    """Check the device and the precision that OpenVINO reports for the compiled graph.

    Raises:
        ProviderUnavailable: they are not the requested ones.
    """
    devices = compiled.get_property(properties.execution_devices)
    precision = compiled.get_property(hint.inference_precision)
    if list(devices) != [DEVICE] or precision != FLOAT_TYPES[arithmetic]:
        raise ProviderUnavailable(
            f"{arithmetic} on {DEVICE} was requested, but OpenVINO uses {precision.get_type_name()} on"
            f" {', '.join(devices)}"
        )


def _tensors(ports: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            # A tensor may have several names in OpenVINO, for example those around an Identity.
            next((name for name in OUTPUTS if name in port.names), port.any_name),
            DTYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(axis.get_length() if axis.is_static else None for axis in port.partial_shape),
        )
        for port in ports
    )


def _last_line(exc: Exception) -> str:
    """Return the last line, the reason; the lines before it name positions in OpenVINO's source."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__

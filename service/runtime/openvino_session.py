"""OpenVINO behind the session protocol, on the CPU: in float32, bfloat16 or float16, and int8 graphs."""

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

from service.errors import PackageError, ProviderUnavailable
from service.runtime.memory import Growth, return_freed_memory
from service.runtime.session import (
    Arithmetic,
    InferenceFailed,
    Inputs,
    Outputs,
    Runtime,
    Tensor,
    rows_of,
)
from service.runtime.signature import EVIDENCE, LOGITS

DEVICE = "CPU"
DTYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}
# What the layers are computed in that the graph has in float; those of an int8 graph that are not int8 are
# few, and no faster in anything else.
FLOATS = {
    Arithmetic.F32: openvino.Type.f32,
    Arithmetic.BF16: openvino.Type.bf16,
    Arithmetic.F16: openvino.Type.f16,
    Arithmetic.INT8: openvino.Type.f32,
}
# By the name under which the device says that it has instructions for it. Without them OpenVINO would take
# float32 and say nothing.
NEEDED = {Arithmetic.BF16: "BF16", Arithmetic.F16: "FP16"}

# It has no exceptions of its own for a graph that it cannot read, compile or run.
ENGINE_ERRORS = (RuntimeError, ValueError)


class OpenVinoSession:
    """One graph in OpenVINO, in the arithmetic that was asked for and no other."""

    def __init__(self, graph: Path, arithmetic: Arithmetic, threads: int, streams: int) -> None:
        """Load `graph`.

        Args:
            graph: path of the .onnx file.
            arithmetic: what to compute in.
            threads: threads of one run.
            streams: runs side by side.

        Raises:
            ProviderUnavailable: this processor does not have the arithmetic.
            PackageError: the graph cannot be loaded.
        """
        core = process_core()
        _require(core, arithmetic)
        self._compiled = _compile(core, graph, arithmetic, threads, streams)
        self._requests: LifoQueue[openvino.InferRequest] = LifoQueue()
        self._growth = Growth()
        self.inputs = _tensors(self._compiled.inputs)
        self.outputs = _tensors(self._compiled.outputs)
        self.runtime = Runtime(
            engine="openvino",
            version=openvino.get_version().partition("-")[0],
            provider="openvino",
            arithmetic=arithmetic,
            threads=self._compiled.get_property(properties.inference_num_threads) // streams,
            streams=self._compiled.get_property(properties.num_streams),
        )

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch; see `Session`. Each of several at once has a request of its own."""
        if self._growth.over(rows_of(inputs)):
            self._shrink()
        try:
            request = self._requests.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(
                {name: np.ascontiguousarray(array) for name, array in inputs.items()}, share_inputs=True
            )
            outputs = Outputs(*(request.get_tensor(name).data.copy() for name in (LOGITS, EVIDENCE)))
        except ENGINE_ERRORS as exc:
            raise InferenceFailed(f"OpenVINO could not run the graph: {_last_line(exc)}") from exc
        self._requests.put(request)  # one that has failed is not used again
        return outputs

    def _shrink(self) -> None:
        """Give back the tensors of large batches; those of a run that is under way stay."""
        with suppress(*ENGINE_ERRORS):  # it refuses while a run is under way, and keeps them
            self._compiled.release_memory()
        return_freed_memory()

    def close(self) -> None:
        """Drop the compiled graph and its requests, which frees their memory."""
        del self._requests, self._compiled


@cache
def process_core() -> openvino.Core:
    """OpenVINO, once for the life of the process.

    Where a processor has AMX, its CPU plugin gives the thread that loads it an alternate signal stack, and
    unmaps that when it is unloaded, in whatever thread: the next signal with a handler then ends the process.
    """
    return openvino.Core()


def _require(core: openvino.Core, arithmetic: Arithmetic) -> None:
    needed = NEEDED.get(arithmetic)
    capabilities = core.get_property(DEVICE, properties.device.capabilities)
    if needed is not None and needed not in capabilities:
        raise ProviderUnavailable(f"this processor has no {arithmetic} (it has {', '.join(capabilities)})")


def _compile(
    core: openvino.Core, graph: Path, arithmetic: Arithmetic, threads: int, streams: int
) -> openvino.CompiledModel:
    config: dict[Any, Any] = {
        properties.inference_num_threads: threads * streams,
        properties.num_streams: streams,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: FLOATS[arithmetic],
    }
    try:
        compiled = core.compile_model(core.read_model(graph), DEVICE, config)
    except ENGINE_ERRORS as exc:
        raise PackageError(f"OpenVINO cannot load the graph: {_last_line(exc)}") from exc
    check_in_use(compiled, arithmetic)
    return compiled


def check_in_use(compiled: openvino.CompiledModel, arithmetic: Arithmetic) -> None:
    """Ask the compiled graph what it runs on.

    Raises:
        ProviderUnavailable: another device or arithmetic than was asked for.
    """
    devices = compiled.get_property(properties.execution_devices)
    precision = compiled.get_property(hint.inference_precision)
    if list(devices) != [DEVICE] or precision != FLOATS[arithmetic]:
        raise ProviderUnavailable(
            f"OpenVINO was asked for {arithmetic} on {DEVICE}, it took {precision.get_type_name()} on"
            f" {', '.join(devices)}"
        )


def _tensors(ports: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            port.any_name,
            DTYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(axis.get_length() if axis.is_static else None for axis in port.partial_shape),
        )
        for port in ports
    )


def _last_line(exc: Exception) -> str:
    """What is wrong; the lines before it say where in OpenVINO's source."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__

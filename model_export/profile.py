"""The costs of a network: parameters, multiply-accumulates and activation memory, stage by stage.

The network is called on torch's `meta` device, where tensors have shapes but no values. A meter around every
operation adds up the multiply-accumulates of convolutions and matrix products, and follows the bytes of all
live tensors. So the figures are those of the training code, in eager PyTorch and float32, without the
workspaces inside an operation, the parameters and their gradients.

- One multiply-accumulate counts once. The taps of a TAM count as convolutions, in their folded form.
- `activation_bytes`: the most bytes alive at once in a forward pass without gradients, the input included.
- `training_activation_bytes`: the same in a training step, forward and backward. The share of a stage is the
  memory that it keeps for the backward pass.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model_export.networks.config import ModelConfig
from model_export.networks.registry import build
from service.clip.spec import ClipSpec

LAYERS = ("layer1", "layer2", "layer3", "layer4")
STAGES = ("stem", *LAYERS, "head")
KINDS = ("convolution", "tam", "rest")
GIGA = 1e9
# Clips of the training step: batch normalisation needs more than one value per channel. Figures are per clip.
BATCH = 2

aten = torch.ops.aten


@dataclass(frozen=True)
class Costs:
    """The costs of a network, or of one of its stages, for one clip.

    Attributes:
        parameters: number of trained values.
        gmacs: 10^9 multiply-accumulates of a forward pass, the sum of the following three.
        convolution_gmacs: gmacs of convolutions other than TAMs.
        tam_gmacs: gmacs of the taps of TAMs.
        rest_gmacs: gmacs of the fully connected layer.
        activation_bytes: see the module docstring.
        training_activation_bytes: see the module docstring.
    """

    parameters: int
    gmacs: float
    convolution_gmacs: float
    tam_gmacs: float
    rest_gmacs: float
    activation_bytes: int
    training_activation_bytes: int


@dataclass(frozen=True)
class Profile:
    """The costs of a network, in total and by stage."""

    config: ModelConfig
    total: Costs
    stages: dict[str, Costs]

    def to_json(self) -> dict[str, Any]:
        """The document of `blvnet profile --json`."""
        return {
            "architecture": self.config.architecture,
            "frames": self.config.frames,
            "size": self.config.size,
            "num_classes": self.config.num_classes,
            **asdict(self.total),
            "stages": [{"name": name, **asdict(costs)} for name, costs in self.stages.items()],
        }


def profile_network(config: ModelConfig) -> Profile:
    """Measure the network of a configuration; takes a second or two, and almost no memory."""
    with torch.device("meta"):
        network = build(config)
    clip = config.clip_spec()
    inference = _measure_inference(network.eval(), clip)
    kept, training_peak = _measure_training(network.train(), clip)
    parameters = dict.fromkeys(STAGES, 0)
    for name, tensor in network.named_parameters():
        first = name.partition(".")[0]
        stage = first if first in LAYERS else "head" if first == "fc" else "stem"
        parameters[stage] += tensor.numel()
    stages = {
        name: _costs(
            parameters[name], inference.macs[name], inference.peaks[name], kept.get(name, 0) // BATCH
        )
        for name in STAGES
    }
    macs = {kind: sum(inference.macs[name][kind] for name in STAGES) for kind in KINDS}
    total = _costs(sum(parameters.values()), macs, max(inference.peaks.values()), training_peak // BATCH)
    return Profile(config, total, stages)


def count_macs(network: nn.Module, clip: ClipSpec) -> int:
    """Multiply-accumulates of a network for one clip, as `Costs.gmacs` counts them."""
    measured = _measure_inference(copy.deepcopy(network).to("meta").eval(), clip)
    return sum(sum(kinds.values()) for kinds in measured.macs.values())


@dataclass
class Measurement:
    """The meter's figures by stage: multiply-accumulates by kind, and the peak of live bytes."""

    macs: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: dict.fromkeys(KINDS, 0) for name in STAGES}
    )
    peaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates and follows live bytes of the current `stage`."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stage: str = STAGES[0]
        self.measured: Measurement = Measurement()
        self.live = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in (*known.parameters(), *known.buffers(), *(p.grad for p in known.parameters())):
            if tensor is not None:
                self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        # Each value of the result takes one multiply-accumulate per weight of its filter, or per row entry.
        if operation is aten.convolution:
            weight, groups = args[1], args[8]
            kind = "tam" if groups == weight.shape[0] > 1 else "convolution"  # nothing else is depthwise
            self.measured.macs[self.stage][kind] += result.numel() * weight[0].numel()
        elif operation in (aten.mm, aten.bmm, aten.addmm):
            left = args[1] if operation is aten.addmm else args[0]
            self.measured.macs[self.stage]["rest"] += result.numel() * left.shape[-1]
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.follow(tensor)
        return result

    def follow(self, tensor: Tensor) -> None:
        """Count a tensor's bytes until its memory is freed."""
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.live += size
        weakref.finalize(storage, self._freed, size)
        self.measured.peaks[self.stage] = max(self.measured.peaks[self.stage], self.live)

    def _freed(self, size: int) -> None:
        self.live -= size


def _measure_inference(network: nn.Module, clip: ClipSpec) -> Measurement:
    inputs = _inputs(clip, 1)
    meter = Meter(network)
    with torch.no_grad(), meter, _follow_stages(network, meter):
        for frames in inputs:
            meter.follow(frames)
        network(*inputs)
    return meter.measured


def _measure_training(network: nn.Module, clip: ClipSpec) -> tuple[dict[str, int], int]:
    """Bytes that each stage keeps for the backward pass, and the peak of a whole step, for `BATCH` clips."""
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that gradients of parameters are not counted
    inputs = _inputs(clip, BATCH)
    kept: dict[str, int] = {}
    meter = Meter(network)
    with meter:
        for frames in inputs:
            meter.follow(frames)
        with _follow_stages(network, meter, kept):
            evidence = network(*inputs)
        evidence.mean(1).sum().backward()
    return kept, max(meter.measured.peaks.values())


@contextmanager
def _follow_stages(network: nn.Module, meter: Meter, kept: dict[str, int] | None = None) -> Iterator[None]:
    """Set the meter's stage as the network runs; add to `kept` the bytes that each stage leaves alive."""
    start = 0

    def enter(stage: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            nonlocal start
            if kept is not None:
                kept[meter.stage] = meter.live - start
            start = meter.live
            meter.stage = stage

        return hook

    layers = [network.get_submodule(name) for name in LAYERS]
    handles = [
        layer.register_forward_pre_hook(enter(name)) for name, layer in zip(LAYERS, layers, strict=True)
    ]
    handles.append(layers[-1].register_forward_hook(enter("head")))
    try:
        yield
    finally:
        enter("head")()
        for handle in handles:
            handle.remove()


def _inputs(clip: ClipSpec, batch: int) -> list[Tensor]:
    """Normalised inputs without values, in the layout of `normalise.normalise`."""
    return [
        torch.empty(batch, *spec.shape(clip.frames), device="meta").permute(0, 1, 4, 2, 3)
        for spec in clip.inputs
    ]


def _costs(parameters: int, macs: dict[str, int], inference_bytes: int, training_bytes: int) -> Costs:
    return Costs(
        parameters=parameters,
        gmacs=sum(macs.values()) / GIGA,
        convolution_gmacs=macs["convolution"] / GIGA,
        tam_gmacs=macs["tam"] / GIGA,
        rest_gmacs=macs["rest"] / GIGA,
        activation_bytes=inference_bytes,
        training_activation_bytes=training_bytes,
    )

"""What a network costs: parameters, multiply-accumulates and activation memory, stage by stage.

The network is not run, but called on torch's `meta` device, where tensors have shapes and no values, with a
meter around every operation: it adds up the multiply-accumulates of convolutions and matrix products, and
follows the bytes of all tensors that are alive at once. So the figures are those of the code that trains,
in eager PyTorch and float32; workspaces inside an operation, parameters and their gradients are not
counted.

- One multiply-accumulate counts once. TAM's taps count as convolutions do, in the folded form that runs.
- `activation_bytes`: the most bytes alive at once in a forward pass without gradients, the input included.
- `training_activation_bytes`: the same in a training step, forward and backward. A stage's own share is
  what it keeps for the backward pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model_export.config import ModelConfig
from model_export.networks.names import build

LAYERS = ("layer1", "layer2", "layer3", "layer4")
STAGES = ("stem", *LAYERS, "head")
GIGA = 1e9
BATCH = (
    2  # for the training step, whose statistics want more than one value a channel; the figures are per clip
)


@dataclass(frozen=True)
class Costs:
    """Of a network or one stage of it, for one clip.

    Attributes:
        parameters: trained numbers.
        gmacs: 10^9 multiply-accumulates of a forward pass, the sum of the following three.
        convolution_gmacs: of convolutions other than TAM's.
        tam_gmacs: of TAM's taps.
        rest_gmacs: of the fully connected layer.
        activation_bytes: see the module.
        training_activation_bytes: see the module.
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
    """A network's costs in all and by stage."""

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
    """Measure a network by its configuration; takes a second or two, and no memory to speak of."""
    with torch.device("meta"):
        network = build(config)
    inference = _measure_inference(network.eval(), config)
    kept, training_peak = _measure_training(network.train(), config)
    stages = {
        name: _costs(
            _parameters(network, name),
            inference.macs[name],
            inference.peaks[name],
            kept.get(name, 0) // BATCH,
        )
        for name in STAGES
    }
    macs = {kind: sum(inference.macs[name][kind] for name in STAGES) for kind in _KINDS}
    parameters = sum(costs.parameters for costs in stages.values())
    total = _costs(parameters, macs, max(inference.peaks.values()), training_peak // BATCH)
    return Profile(config, total, stages)


def count_macs(config: ModelConfig) -> int:
    """Multiply-accumulates of one clip, as `Costs.gmacs` counts them."""
    with torch.device("meta"):
        network = build(config)
    measured = _measure_inference(network.eval(), config)
    return sum(sum(kinds.values()) for kinds in measured.macs.values())


_KINDS = ("convolution", "tam", "rest")
_aten = torch.ops.aten


@dataclass
class _Measured:
    """What the meter saw, by stage."""

    macs: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: dict.fromkeys(_KINDS, 0) for name in STAGES}
    )
    peaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates and follows live bytes; `stage` says where they belong."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stage: str = STAGES[0]
        self.measured: _Measured = _Measured()
        self.live = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in (*known.parameters(), *known.buffers(), *(p.grad for p in known.parameters())):
            if tensor is not None:
                self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._count(func.overloadpacket, args, result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.follow(tensor)
        return result

    def follow(self, tensor: Tensor) -> None:
        """Count a tensor's bytes until its memory is given back."""
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

    def _count(self, operation: Any, args: tuple[Any, ...], result: Any) -> None:
        """Multiply-accumulates: each value of the result takes one per weight of its filter, or row."""
        if operation is _aten.convolution:
            weight, groups = args[1], args[8]
            kind = "tam" if groups == weight.shape[0] > 1 else "convolution"  # nothing else is depthwise
            self.measured.macs[self.stage][kind] += result.numel() * weight[0].numel()
        elif operation in (_aten.mm, _aten.bmm, _aten.addmm):
            left = args[1] if operation is _aten.addmm else args[0]
            self.measured.macs[self.stage]["rest"] += result.numel() * left.shape[-1]


def _measure_inference(network: nn.Module, config: ModelConfig) -> _Measured:
    streams = _streams(config, 1)
    meter = _Meter(network)
    with torch.no_grad(), meter, _stages_followed(network, meter):
        for stream in streams:
            meter.follow(stream)
        network(*streams)
    return meter.measured


def _measure_training(network: nn.Module, config: ModelConfig) -> tuple[dict[str, int], int]:
    """Bytes that each stage keeps for the backward pass, and the peak of a whole step, for `BATCH` clips."""
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that gradients of parameters are not counted
    streams = _streams(config, BATCH)
    kept: dict[str, int] = {}
    meter = _Meter(network)
    with meter:
        for stream in streams:
            meter.follow(stream)
        with _stages_followed(network, meter, kept):
            evidence = network(*streams)
        evidence.mean(1).sum().backward()
    return kept, max(meter.measured.peaks.values())


@contextmanager
def _stages_followed(network: nn.Module, meter: _Meter, kept: dict[str, int] | None = None) -> Iterator[None]:
    """Tell the meter which stage runs; note in `kept` by how much each stage left more bytes alive."""
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


def _streams(config: ModelConfig, batch: int) -> list[Tensor]:
    """Normalised inputs without values, laid out as `pixels.normalise` gives them."""
    streams = []
    for spec in config.clip_spec().inputs:
        frames = torch.empty(batch, *spec.shape(config.frames), device="meta")
        streams.append(frames.permute(0, 1, 4, 2, 3))
    return streams


def _parameters(network: nn.Module, stage: str) -> int:
    def stage_of(name: str) -> str:
        first = name.partition(".")[0]
        return first if first in LAYERS else "head" if first == "fc" else "stem"

    return sum(tensor.numel() for name, tensor in network.named_parameters() if stage_of(name) == stage)


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

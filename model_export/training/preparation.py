"""Prepare a network for training: memory layout, batch norm, checkpointing, compilation, processes.

The names of the network's parameters do not change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from model_export.networks.blvnet import DualStem
from model_export.networks.residual import BasicBlock, Bottleneck
from model_export.training.config import BatchNorm, Freeze, TrainConfig
from model_export.training.processes import Processes
from service.errors import BlvnetError

# Parameters of glibc's mallopt and their defaults, from malloc.h and malloc.c.
M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD = -1, 128 << 10
M_MMAP_MAX, DEFAULT_MMAP_MAX = -4, 65536

NO_MEMORY = "can't allocate memory"  # in the message of torch's allocator on a CPU

# Modules of each stage, in the order of the stages: the networks with one input have no module for the stem.
STAGES = {
    Freeze.STEM: ("stem", "conv1", "bn1"),
    Freeze.LAYER1: ("layer1",),
    Freeze.LAYER2: ("layer2",),
    Freeze.LAYER3: ("layer3",),
    Freeze.LAYER4: ("layer4",),
}


def prepare(network: nn.Module, config: TrainConfig, processes: Processes) -> nn.Module:
    """Prepare a network on its device, in place.

    Returns:
        The module to call in training: the network, or a wrapper that exchanges its gradients between the
        processes.
    """
    for module in [*frozen_norms(network, config.batch_norm), *frozen_stages(network, config.freeze)]:
        module.requires_grad_(False)
    if config.batch_norm is BatchNorm.SYNC and processes.count > 1:
        if processes.device.type == "cuda":
            # This works in place, because no network is itself a norm.
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        else:
            synchronise_norms(network)
    if config.checkpointing:
        checkpoint_blocks(network)
    if config.compile:
        network.compile()
    if processes.count == 1:
        return network
    return DistributedDataParallel(network, [processes.device] if processes.device.type == "cuda" else None)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc's allocator keep the memory of freed tensors, which the next step allocates again.

    Otherwise every large tensor gets new pages, and the kernel clears each page before its first use. On a
    CPU this takes up to a third of the time of a step. Other C libraries have no such setting.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)  # converted to the largest size
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)


@contextmanager
def compile_errors(*, enabled: bool) -> Iterator[None]:
    """Turn a failure of `torch.compile` within the block into a message with the remedy.

    Raises:
        BlvnetError: this machine cannot compile, for example without a C++ compiler.
    """
    if not enabled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes a second

    try:
        yield
    except TorchDynamoException as exc:
        cause = getattr(exc, "inner_exception", None) or exc
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise BlvnetError(
            f"torch.compile fails on this machine ({type(cause).__name__}: {reason}): install a C++ compiler "
            "(apt-get install g++) or name one in CXX, or leave --compile out"
        ) from exc


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a lack of memory within the block into a message with the remedies.

    Raises:
        BlvnetError: the device has too little memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:  # torch raises a RuntimeError on a CPU
        if not isinstance(exc, MemoryError | torch.OutOfMemoryError) and NO_MEMORY not in str(exc):
            raise
        raise BlvnetError(
            "there is too little memory for a step: use a smaller --batch-size, --accumulate, "
            "--checkpointing, or a smaller --size"
        ) from exc


def check_compiles(device: torch.device) -> None:
    """Compile a small function: without a compiler, a run should fail before its videos are decoded.

    Raises:
        BlvnetError: as `compile_errors`.
    """
    with compile_errors(enabled=True):
        torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))


def train_mode(network: nn.Module, mode: BatchNorm, freeze: Freeze = Freeze.NONE) -> None:
    """Put the network into training mode, and frozen norms and stages into evaluation mode."""
    network.train()
    for module in [*frozen_norms(network, mode), *frozen_stages(network, freeze)]:
        module.eval()


def frozen_stages(network: nn.Module, last: Freeze) -> list[nn.Module]:
    """The modules of the stages up to `last`."""
    names = [name for stage in list(STAGES)[: list(Freeze).index(last)] for name in STAGES[stage]]
    return [module for name, module in network.named_children() if name in names]


def frozen_norms(network: nn.Module, mode: BatchNorm) -> list[nn.Module]:
    """The norms that a mode freezes."""
    norms: list[nn.Module] = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    match mode:
        case BatchNorm.FROZEN:
            return norms
        case BatchNorm.PARTIAL:
            # The dual stem has a norm for each of its inputs after the first convolution.
            first = [*norms[:1], *(m.big_bn1 for m in network.modules() if isinstance(m, DualStem))]
            return [norm for norm in norms if norm not in first]
        case _:
            return []


def use_channels_last(network: nn.Module) -> None:
    """Store kernels channels last, in 2D and in 3D, for which convolutions are fastest."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def checkpoint_blocks(network: nn.Module) -> None:
    """Keep only the inputs of residual blocks; the backward pass computes the rest of each block again."""
    for block in network.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            block.forward = partial(  # type: ignore[method-assign]
                _checkpointed, block.forward, [m for m in block.modules() if isinstance(m, _BatchNorm)]
            )


def _checkpointed(forward: Any, norms: list[_BatchNorm], x: Tensor) -> Any:
    if not torch.is_grad_enabled():
        return forward(x)
    return checkpoint(
        forward,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # blocks have no dropout
        context_fn=lambda: (nullcontext(), _without_tracking(norms)),
    )


@contextmanager
def _without_tracking(norms: list[_BatchNorm]) -> Iterator[None]:
    """Keep the running statistics unchanged: the first pass has counted the batch."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = torch.zeros_like(norm.num_batches_tracked)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class SynchronisedNorm(_BatchNorm):
    """Batch norm over the clips of all processes, on CPUs; `torch.nn.SyncBatchNorm` works only on GPUs."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any shape (N, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        values = x.float()
        count = _summed(torch.tensor([x.numel() / x.shape[1]]))
        mean = _summed(values.sum(axes)) / count
        centred = values - mean.reshape(shape)
        variance = _summed(centred.square().sum(axes)) / count
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).detach(), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(x.dtype)


def synchronise_norms(network: nn.Module) -> None:
    """Replace the behaviour of every batch norm by that of `SynchronisedNorm`."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SynchronisedNorm


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients, as each process uses it."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(None, gradient)


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total

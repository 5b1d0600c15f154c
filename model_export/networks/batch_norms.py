"""Which batch normalisation follows which convolution, and statistics for those that have none.

In evaluation mode a batch normalisation is an affine map per channel. Many values of its four tensors
describe the same map. `set_statistics` sets the mean and variance of real activations, which training mode
needs, without changing the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from model_export.networks.blvnet import BigLittleStem
from model_export.networks.residual import BasicBlock, Bottleneck
from model_export.networks.resnet import FrameResNet, I3DResNet

BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d

# Modules in which `bnN` follows `convN`. In a big-little stem, two may follow one convolution.
NUMBERED = (BasicBlock, Bottleneck, FrameResNet, I3DResNet)
# Convolutions of a big-little stem after the first temporal module, and their normalisations.
STEM_BRANCHES = {
    "b_conv0": "bn_b0",
    "l_conv0": "bn_l0",
    "l_conv1": "bn_l1",
    "l_conv2": "bn_l2",
    "bl_init": "bn_bl_init",
}


def convolutions_with_norm(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's own convolutions that have a batch normalisation, and of the normalisations.

    The conv1 of a big-little stem is not among them.
    """
    names = [name for name, _ in module.named_children()]
    if isinstance(module, BigLittleStem):
        return list(STEM_BRANCHES.items())
    if isinstance(module, NUMBERED):
        return [(name, f"bn{name.removeprefix('conv')}") for name in names if name.startswith("conv")]
    if isinstance(module, nn.Sequential):
        return [
            (name, following)
            for name, following in pairwise(names)
            if isinstance(module.get_submodule(following), BatchNorm)
        ]
    return []


@torch.no_grad()
def set_affine(norm: BatchNorm, scale: Tensor, offset: Tensor) -> None:
    """Make a batch normalisation the map `scale * x + offset` in evaluation mode, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
    norm.weight.copy_(scale)
    norm.bias.copy_(offset)


@torch.no_grad()
def set_statistics(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Give a batch normalisation other statistics, (C,) each, and keep its map in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    norm.bias.add_(scale * (mean - norm.running_mean))
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def measure_statistics(network: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
    """Give every batch normalisation the statistics of these batches, without changing the network's results.

    Args:
        network: the network, in evaluation mode during the call; its mode is restored.
        batches: the network's inputs, batch by batch.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    training = network.training
    network.eval()
    with _moments(norms) as moments, torch.inference_mode():
        for inputs in batches:
            network(*inputs)
    network.train(training)
    for norm, (count, total, squares) in zip(norms, moments, strict=True):
        if count:
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0.0)
            set_statistics(norm, mean.to(norm.weight.dtype), variance.to(norm.weight.dtype))


@contextmanager
def _moments(norms: Sequence[BatchNorm]) -> Iterator[list[list[Any]]]:
    """Sum up the inputs of each normalisation during the block: count, sum and sum of squares by channel."""
    moments: list[list[Any]] = [[0, 0.0, 0.0] for _ in norms]

    def add(index: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1).double()
        entry = moments[index]
        entry[0] += values.shape[1]
        entry[1] = entry[1] + values.sum(1)
        entry[2] = entry[2] + values.square().sum(1)

    hooks = [norm.register_forward_pre_hook(partial(add, index)) for index, norm in enumerate(norms)]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()

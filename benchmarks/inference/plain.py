"""The baselines: the plain form of a network in PyTorch, and its plain ONNX export.

Weights are random, so that any network can be measured without a checkpoint: the usual initialisation, with
TAM taps that mix frames and batch norm statistics of generated clips. Activations then have realistic
magnitudes and do not overflow in any precision.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_export.checkpoints.checkpoint import load_network, save_checkpoint
from model_export.export.calibration import synthetic_clips
from model_export.export.onnx_graph import OPSET, quiet_exporter
from model_export.networks.config import ModelConfig
from model_export.networks.normalise import normalise
from model_export.networks.registry import build
from model_export.networks.temporal import TemporalAggregation
from model_export.networks.unfolded import unfold
from service.clip.spec import ClipSpec
from service.errors import BlvnetError
from service.packages.manifest import EVIDENCE, LOGITS
from service.subprocesses.workload import Arrays, RunBatch

GRAPH_OUTPUTS = (LOGITS, EVIDENCE)
STATISTICS_CLIPS = 2  # for the statistics of batch norms
TAP_NOISE = 0.2


@dataclass(frozen=True)
class TorchArithmetic:
    """Device and data type of PyTorch."""

    device: str
    dtype: torch.dtype


ON_CORES = TorchArithmetic("cpu", torch.float32)
CUDA = "cuda"


class NoCompiler(BlvnetError):
    """torch.compile needs a C++ compiler for the CPU."""


class PlainGraph(nn.Module):
    """uint8 inputs (N, T_b, S, S, 3) -> logits (N, C) and evidence (N, T', C), without any rewrite."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = unfold(network).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        evidence = self.network(*(normalise(frames).to(self.dtype) for frames in inputs))
        return evidence.mean(dim=1), evidence


def random_network(config: ModelConfig) -> nn.Module:
    """The network with random weights as described above; deterministic."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(config)
        for module in network.modules():
            if isinstance(module, TemporalAggregation):
                module.taps.data += TAP_NOISE * torch.randn_like(module.taps)
    _set_statistics(network, config.clip_spec())
    return network.eval()


def write_random_checkpoint(path: Path, config: ModelConfig, labels: Sequence[str]) -> None:
    """Save `random_network` as a checkpoint with labels."""
    save_checkpoint(path, config, random_network(config).state_dict(), {"labels": list(labels)})


def export_plain(checkpoint: Path, graph: Path) -> None:
    """Export the plain form with torch's exporter."""
    network, config, _ = load_network(checkpoint)
    clip = config.clip_spec()
    batch = torch.export.Dim("N")
    examples = tuple(torch.zeros(2, *item.shape(clip.frames), dtype=torch.uint8) for item in clip.inputs)
    with quiet_exporter():
        torch.onnx.export(
            PlainGraph(network).eval(),
            examples,
            graph,
            input_names=[item.name for item in clip.inputs],
            output_names=list(GRAPH_OUTPUTS),
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
        )


def load_eager(checkpoint: Path, threads: int, arithmetic: TorchArithmetic = ON_CORES) -> RunBatch:
    """The plain form in eager PyTorch, like the authors' code."""
    return _workload(checkpoint, threads, arithmetic, compiled=False)


def load_compiled(
    checkpoint: Path, threads: int, cache: Path, arithmetic: TorchArithmetic = ON_CORES
) -> RunBatch:
    """The plain form with `torch.compile`, compiled without earlier results, in the folder `cache`.

    Raises:
        NoCompiler: there is no C++ compiler.
    """
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise NoCompiler("torch.compile needs a C++ compiler, but g++ was not found")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=cache)
    return _workload(checkpoint, threads, arithmetic, compiled=True)


def load_product(size: int) -> RunBatch:
    """The product of two square float32 matrices on the GPU, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    left, right = (torch.rand(size, size, device=CUDA) for _ in range(2))
    product = torch.empty_like(left)

    def run(_: Arrays) -> Arrays:
        torch.matmul(left, right, out=product)
        torch.cuda.synchronize()
        return {}

    return run


def _workload(checkpoint: Path, threads: int, arithmetic: TorchArithmetic, *, compiled: bool) -> RunBatch:
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network, config, _ = load_network(checkpoint)
    names = [item.name for item in config.clip_spec().inputs]
    graph = PlainGraph(network, arithmetic.dtype).eval().to(arithmetic.device)
    # On CPUs each batch size is compiled separately; on GPUs torch decides.
    dynamic = False if arithmetic == ON_CORES else None
    forward = torch.compile(graph, dynamic=dynamic) if compiled else graph

    def run(clips: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = forward(*(torch.from_numpy(clips[name]).to(arithmetic.device) for name in names))
        return {name: value.float().cpu().numpy() for name, value in zip(GRAPH_OUTPUTS, outputs, strict=True)}

    return run


def _set_statistics(network: nn.Module, clip: ClipSpec) -> None:
    """Compute the batch norm statistics of generated clips in one pass."""
    clips = synthetic_clips(clip, STATISTICS_CLIPS)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.momentum = None  # cumulative average
        norm.train()
    inputs = (torch.from_numpy(np.stack([made[item.name] for made in clips])) for item in clip.inputs)
    with torch.no_grad():
        network(*(normalise(frames) for frames in inputs))

"""What the exported graphs are compared with: the plain (doubled) form in PyTorch, and its plain ONNX export.

Weights are made, so a network of any size can be measured without a checkpoint: its own initialisation with
taps that mix frames, and batch norms that have seen made clips, so that activations are of the size that
they have in a trained network and no precision overflows.
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

from model_export.calibration import made_clips
from model_export.checkpoint import load_network, save_checkpoint
from model_export.config import ModelConfig
from model_export.graph import OPSET, OUTPUTS, quiet_exporter
from model_export.networks.names import build
from model_export.networks.pixels import normalise
from model_export.networks.reference import plain
from model_export.networks.temporal import TemporalAggregation
from service.clip.spec import ClipSpec
from service.contenders.contender import Arrays, Workload
from service.errors import BlvnetError

SEEN_CLIPS = 2  # that the batch norms have statistics of
TAP_NOISE = 0.2


@dataclass(frozen=True)
class Arithmetic:
    """Where PyTorch computes, and in what."""

    device: str
    dtype: torch.dtype


ON_CORES = Arithmetic("cpu", torch.float32)
CUDA = "cuda"


class NoCompiler(BlvnetError):
    """torch.compile needs a C++ compiler for the CPU."""


class PlainGraph(nn.Module):
    """uint8 inputs (N, T_b, S, S, 3) -> logits (N, C) and evidence (N, T', C), without any rewrite."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = plain(network).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        evidence = self.network(*(normalise(frames).to(self.dtype) for frames in inputs))
        return evidence.mean(dim=1), evidence


def made_network(config: ModelConfig) -> nn.Module:
    """The network with the weights that the module tells of; always the same ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(config)
        for module in network.modules():
            if isinstance(module, TemporalAggregation):
                module.taps.data += TAP_NOISE * torch.randn_like(module.taps)
    _see_clips(network, config.clip_spec())
    return network.eval()


def write_made_checkpoint(path: Path, config: ModelConfig, labels: Sequence[str]) -> None:
    """`made_network` as a checkpoint with labels, for `blvnet export` and the contenders."""
    save_checkpoint(path, config, made_network(config).state_dict(), {"labels": list(labels)})


def export_plain(checkpoint: Path, graph: Path) -> None:
    """Write the plain form as torch's exporter gives it."""
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
            output_names=list(OUTPUTS),
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
        )


def load_eager(checkpoint: Path, threads: int, arithmetic: Arithmetic = ON_CORES) -> Workload:
    """The plain form in eager PyTorch, as the authors' code computes it."""
    return _workload(checkpoint, threads, arithmetic, compiled=False)


def load_compiled(checkpoint: Path, threads: int, cache: Path, arithmetic: Arithmetic = ON_CORES) -> Workload:
    """The plain form by `torch.compile`, compiled anew; what it compiles goes below the folder `cache`.

    Raises:
        NoCompiler: there is no C++ compiler.
    """
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise NoCompiler("torch.compile needs a C++ compiler, and there is no g++")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=cache)
    return _workload(checkpoint, threads, arithmetic, compiled=True)


def load_product(size: int) -> Workload:
    """The product of two square float32 matrices on a GPU, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    left, right = (torch.rand(size, size, device=CUDA) for _ in range(2))
    product = torch.empty_like(left)

    def run(_: Arrays) -> Arrays:
        torch.matmul(left, right, out=product)
        torch.cuda.synchronize()
        return {}

    return run


def _workload(checkpoint: Path, threads: int, arithmetic: Arithmetic, *, compiled: bool) -> Workload:
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network, config, _ = load_network(checkpoint)
    names = [item.name for item in config.clip_spec().inputs]
    graph = PlainGraph(network, arithmetic.dtype).eval().to(arithmetic.device)
    # On cores each batch size is compiled for itself; on a GPU as torch would by itself, which is any size.
    dynamic = False if arithmetic == ON_CORES else None
    forward = torch.compile(graph, dynamic=dynamic) if compiled else graph

    def run(clips: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = forward(*(torch.from_numpy(clips[name]).to(arithmetic.device) for name in names))
        return {name: value.float().cpu().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}

    return run


def _see_clips(network: nn.Module, clip: ClipSpec) -> None:
    """Batch norms take their statistics from made clips, in one pass."""
    clips = made_clips(clip, SEEN_CLIPS)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.momentum = None  # an average over what is seen
        norm.train()
    streams = (torch.from_numpy(np.stack([made[item.name] for made in clips])) for item in clip.inputs)
    with torch.no_grad():
        network(*(normalise(frames) for frames in streams))

"""Training steps of bLVNet-TAM-50 8x2 in this process, ours or those of the authors' code.

`python -m benchmarks.training.step` prints one JSON document. Its parent process sets the number of threads
and the allocator's settings.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from model_export.networks.registry import build, parse_architecture
from model_export.training.config import Amp, Decay, TrainConfig
from model_export.training.optimizer import make_optimizer
from model_export.training.preparation import use_channels_last
from model_export.training.step import autocast

ARCHITECTURE = "blvnet-tam-50-a2-b4-f8x2"
FRAMES, SIZE, CLASSES = 16, 224, 174
CONFIG = TrainConfig(weight_decay=5e-4, decay=Decay.ALL)

Forward = Callable[[], Tensor]


def ours(batch: int, amp: Amp) -> tuple[nn.Module, Forward]:
    """Our network, and its forward pass on a batch of clips."""
    network = build(parse_architecture(ARCHITECTURE, num_classes=CLASSES))
    use_channels_last(network)
    clips = torch.randn(2, batch, FRAMES // 2, 3, SIZE, SIZE)

    def forward() -> Tensor:
        with autocast(torch.device("cpu"), amp):
            return network(*clips).mean(1).float()  # type: ignore[no-any-return]

    return network, forward


def reference(folder: Path, batch: int) -> tuple[nn.Module, Forward]:
    """The network of the authors' code in `folder`, as its `train.py` builds it."""
    sys.path.insert(0, str(folder))
    module = importlib.import_module("core.models.blvnet_tam")
    parameters: dict[str, Any] = {
        "depth": 50, "alpha": 2, "beta": 4, "groups": FRAMES, "num_classes": CLASSES, "dropout": 0.5,
        "blending_frames": 3, "input_channels": 3, "dataset": "st2stv2", "imagenet_blnet_pretrained": False,
    }  # fmt: skip
    with contextlib.redirect_stdout(sys.stderr):  # it prints its parameters
        network: nn.Module = module.bLVNet_TAM(parameters)
    clips = torch.randn(batch, FRAMES * 3, SIZE, SIZE)
    return network, lambda: network(clips)


def main(
    batch: Annotated[int, typer.Option()],
    steps: Annotated[int, typer.Option()],
    threads: Annotated[int, typer.Option()],
    amp: Annotated[Amp, typer.Option()] = Amp.OFF,
    folder: Annotated[Path | None, typer.Option(help="Authors' code; ours without it.")] = None,
) -> None:
    """Run one step to warm up and `steps` more; print their times and the largest memory of the process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, forward = ours(batch, amp) if folder is None else reference(folder, batch)
    network.train()
    optimizer = make_optimizer(network, CONFIG)
    labels = torch.randint(CLASSES, (batch,))
    wall_s, cpu_s = [], []
    for _ in range(steps + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        F.cross_entropy(forward(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"wall_s": wall_s[1:], "cpu_s": cpu_s[1:], "peak_mb": peak_mb}))


if __name__ == "__main__":
    typer.run(main)

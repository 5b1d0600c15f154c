"""Batch norm modes, activation checkpointing, and the allocator."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.networks.registry import build, parse_architecture
from model_export.training.config import BatchNorm, TrainConfig
from model_export.training.preparation import frozen_norms, prepare, train_mode
from model_export.training.processes import Processes


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(architecture: str = "blvnet-tam-mini") -> nn.Module:
    """A network that has seen a batch, so that its norms are not the identity."""
    torch.manual_seed(0)
    built = build(parse_architecture(architecture, num_classes=2, frames=4, size=32, dropout=0.0))
    for module in built.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return built


def inputs(architecture: str = "blvnet-tam-mini") -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    if "blvnet" in architecture:
        return tuple(torch.randn(2, 2, 3, side, side, generator=generator) for side in (32, 16))
    return (torch.randn(2, 4, 3, 32, 32, generator=generator),)


def statistics(trained: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in trained.buffers()]


def saved_bytes(trained: nn.Module, batch: tuple[Tensor, ...]) -> tuple[int, Tensor]:
    """Bytes that a forward pass keeps for the backward pass, and the sum of its result."""
    sizes: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        result = trained(*batch).square().sum()
    return sum(sizes.values()), result


@pytest.mark.parametrize("architecture", ["blvnet-tam-mini", "tam-i3d-mini", "tsm-mini"])
def test_checkpointed_network_keeps_less_and_computes_the_same(architecture: str) -> None:
    plain, batch = network(architecture), inputs(architecture)
    saving = copy.deepcopy(plain)
    prepare(saving, TrainConfig(checkpointing=True), Processes())
    assert saving.state_dict().keys() == plain.state_dict().keys()
    kept, loss = saved_bytes(plain.train(), batch)
    kept_less, same_loss = saved_bytes(saving.train(), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    same_loss.backward()  # type: ignore[no-untyped-call]
    assert kept_less < 0.6 * kept
    assert torch.equal(loss, same_loss)
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
    assert all(torch.equal(a, b) for a, b in zip(statistics(plain), statistics(saving), strict=True))


@pytest.mark.parametrize(
    ("architecture", "mode", "learning"),
    [
        ("blvnet-tam-mini", BatchNorm.BATCH, None),
        ("blvnet-tam-mini", BatchNorm.PARTIAL, {"stem.bn1", "stem.big_bn1"}),
        ("tsm-mini", BatchNorm.PARTIAL, {"bn1"}),
        ("blvnet-tam-mini", BatchNorm.FROZEN, set()),
    ],
)
def test_frozen_norms_keep_their_statistics_and_weights(
    architecture: str, mode: BatchNorm, learning: set[str] | None
) -> None:
    trained = network(architecture)
    norms = {name: module for name, module in trained.named_modules() if isinstance(module, _BatchNorm)}
    learning = set(norms) if learning is None else learning
    prepare(trained, TrainConfig(batch_norm=mode), Processes())
    train_mode(trained, mode)
    assert len(frozen_norms(trained, mode)) == len(norms) - len(learning)
    before = {
        name: norm.running_mean.clone() for name, norm in norms.items() if norm.running_mean is not None
    }
    trained(*inputs(architecture)).sum().backward()
    changed = {
        name
        for name, norm in norms.items()
        if norm.running_mean is not None and not torch.equal(norm.running_mean, before[name])
    }
    assert changed == learning
    assert {name for name, norm in norms.items() if norm.weight.grad is not None} == learning


@pytest.mark.parametrize(
    "compiler", [None, "/bin/false", "/bin/true"], ids=["none", "failing", "no compiler"]
)
def test_missing_compiler_is_one_line_before_any_video_is_decoded(
    tmp_path: Path, compiler: str | None
) -> None:
    for split in ("train", "val"):
        folder = tmp_path / "data" / split / "label"
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"never read")
    (tmp_path / "empty").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment |= {"PATH": str(tmp_path / "empty"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    if compiler is not None:
        environment["CXX"] = compiler
    command = [Path(sys.executable).with_name("blvnet"), "train", "--compile", "--device", "cpu"]
    command += [
        "--dataset",
        "folder",
        "--data",
        tmp_path / "data",
        "--arch",
        "tsn-mini",
        "--out",
        tmp_path / "run",
    ]
    done = subprocess.run(
        [*map(str, command), "--frames", "4"], capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 1
    assert done.stderr.startswith("blvnet: torch.compile fails on this machine (")
    assert done.stderr.endswith(
        "install a C++ compiler (apt-get install g++) or name one in CXX, or leave --compile out\n"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


# Page faults of tensors that are allocated and freed again and again, and the memory returned at the end.
# The tensors are larger than any threshold that glibc chooses itself.
COUNT_FAULTS = """
import resource, sys, torch
from contextlib import nullcontext
from model_export.training.preparation import freed_memory_kept
from service.machine.resources import resident_bytes

with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    resident = resident_bytes()
print(faults, resident - resident_bytes())
"""


def test_memory_of_freed_tensors_is_used_again_and_returned_at_the_end() -> None:
    def measured(setting: str) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", COUNT_FAULTS, setting], capture_output=True, text=True, check=True
        )
        return [int(number) for number in done.stdout.split()]

    faults, returned_bytes = measured("kept")
    assert faults < measured("default")[0] / 5
    assert returned_bytes > 50e6

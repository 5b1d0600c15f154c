"""The processes of a run: one, or several under `torchrun`, which train the same network together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from service.errors import BlvnetError

Item = TypeVar("Item")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process and the others of the run; every process must call the methods in the same order.

    Attributes:
        rank: the number of this process, from 0.
        count: number of processes.
        device: device that it trains on, which also holds the arguments of `sum` and `minimum`.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        """Whether this process writes the files of the run and reports its progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the tensors of all processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def minimum(self, value: int) -> int:
        """The smallest of the integers of all processes."""
        if self.count == 1:
            return value
        return int(self._reduce(torch.tensor(value, device=self.device), dist.ReduceOp.MIN))

    def any(self, condition: bool) -> bool:
        """Whether the condition holds in any process."""
        return self.minimum(0 if condition else 1) == 0

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order of their ranks."""
        if self.count == 1:
            return list(items)
        gathered: list[list[Item]] = [[] for _ in range(self.count)]
        dist.all_gather_object(gathered, list(items))
        return [item for part in gathered for item in part]

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the main process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process before the others."""
        if not self.main:
            dist.barrier()
        yield
        if self.main and self.count > 1:
            dist.barrier()

    def _reduce(self, values: Tensor, operation: Any) -> Tensor:
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values, operation)
        return values


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` has started, until the block ends.

    They communicate by NCCL on GPUs, one for each process, and by Gloo otherwise.

    Raises:
        BlvnetError: the machine has fewer GPUs than processes, a GPU number was given, or the environment
            is not that of torchrun.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(device=device)
        return
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in variables if name not in os.environ]:
        raise BlvnetError(
            f"TORCHELASTIC_RUN_ID is set and {missing[0]} is not: start with torchrun, or unset the first"
        )
    if device.type == "cuda":
        if str(device) != "cuda":
            raise BlvnetError(
                f"torchrun gives each process a GPU of its own: use --device cuda, not {device}"
            )
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise BlvnetError(f"this machine has {found} GPUs: use --nproc-per-node {found} or less")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()

"""Several processes under torchrun: each takes its rows of every global batch, and the sum is that of one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["World", "world"]


@dataclass(frozen=True)
class World:
    """Which of `size` processes this one is."""

    rank: int = 0
    size: int = 1

    def share(self, index: Tensor) -> tuple[Tensor, int, float]:
        """Of a global batch (B,): this process's rows, the place of the first, and the weight of their mean loss.

        DistributedDataParallel averages gradients over processes; a mean over b of B rows weighed by b * size / B makes
        that the mean over the B rows, whatever remainder a process was dealt. One without a row computes on row 0 with
        weight 0, since every process must take part.
        """
        start, stop = (len(index) * r // self.size for r in (self.rank, self.rank + 1))
        if start == stop:
            return index[:1], 0, 0.0
        return index[start:stop], start, (stop - start) * self.size / len(index)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over processes."""
        if self.size == 1:
            return module
        # buffers are the same everywhere from the start, and gradients need no copy of their own
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def agree(self, flag: bool) -> bool:
        """True on all where it is true on one."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=_device())
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on all."""
        if self.size > 1:
            value = value.to(_device(), copy=True)
            dist.all_reduce(value)
        return value.cpu()

    def from_first(self, value: Tensor) -> Tensor:
        """The first process's value on all, so that decisions agree to the last bit."""
        if self.size > 1:
            held = value.to(_device())
            dist.broadcast(held, 0)
            return held.to(value.device)
        return value


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started; one process alone is a world of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    joined = dist.is_initialized()
    if not joined:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        if not joined:
            dist.destroy_process_group()

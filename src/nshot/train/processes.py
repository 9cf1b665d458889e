"""One process, or several that share each batch: those that ``torch.distributed.run`` started."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """The processes that train together, on one machine or many, with one file system between them.

    Attributes:
        rank: which of them this is.
        count: how many there are.
        device: where this one trains.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        here = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", here) if torch.cuda.is_available() else torch.device("cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            # Threads of the group that still run when the interpreter goes end the process with SIGABRT.
            atexit.register(leave)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def gathered(self, values: Tensor) -> list[Tensor]:
        """Every process's tensor, in the order of their ranks, on its own device; first sizes may differ."""
        if self.count == 1:
            return [values]
        size = torch.tensor([len(values)], device=self.device)
        sizes = [torch.empty_like(size) for _ in range(self.count)]
        dist.all_gather(sizes, size)
        most = int(torch.cat(sizes).max())
        padded = values.new_zeros((most, *values.shape[1:]), device=self.device)
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return [part[: int(own)].to(values.device) for part, own in zip(parts, sizes, strict=True)]

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes, in one message."""
        if self.count > 1:
            flat = torch.cat([each.flatten() for each in gradients])
            dist.all_reduce(flat)
            for each, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
                each.copy_(part.view_as(each))


def leave() -> None:
    """Ends this process's part in the group, and its threads."""
    if dist.is_initialized():
        dist.destroy_process_group()

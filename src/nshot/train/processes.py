"""One process, or several that share each batch through ``accelerate``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from nshot.errors import MissingExtra


class Processes(Protocol):
    """What the training loop asks of the processes that train together."""

    rank: int
    count: int

    def wait(self) -> None:
        """Until all processes are here."""

    def gathered(self, values: Tensor) -> list[Tensor]:
        """Every process's tensor of this name, in the order of their ranks; first sizes may differ."""

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes."""


class Alone:
    """The only process."""

    rank, count = 0, 1

    def wait(self) -> None:
        """Nobody to wait for."""

    def gathered(self, values: Tensor) -> list[Tensor]:
        """The tensor itself."""
        return [values]

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Nothing to add."""


class Together:
    """One of several processes that ``accelerate launch`` started, with one file system between them."""

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingExtra(
                "training in several processes needs accelerate: pip install accelerate"
            ) from error
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()

    def gathered(self, values: Tensor) -> list[Tensor]:
        """Every process's tensor, in the order of their ranks."""
        accelerator = self._accelerator
        size = torch.tensor([len(values)], device=accelerator.device)
        sizes = accelerator.gather(size).tolist()
        padded = accelerator.pad_across_processes(values.to(accelerator.device), dim=0)
        parts = accelerator.gather(padded).chunk(self.count)
        return [part[:size].to(values.device) for part, size in zip(parts, sizes, strict=True)]

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Sums over the processes, in one message."""
        flat = torch.cat([each.flatten() for each in gradients])
        total = self._accelerator.reduce(flat, reduction="sum")
        for each, part in zip(gradients, total.split([each.numel() for each in gradients]), strict=True):
            each.copy_(part.view_as(each))


def started() -> Any:
    """The processes that this one belongs to."""
    return Together() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Alone()

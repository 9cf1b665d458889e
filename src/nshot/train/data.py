"""Pictures with captions to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nshot.sketchbook.captions import caption
from nshot.sketchbook.pairs import drawings, scene_seed
from nshot.sketchbook.scenes import sample
from nshot.types import Pixels


class Pairs(Protocol):
    """What the loop needs of a training set."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The pictures uint8[n,3,s,s] and a caption of each."""


class Sketchbook:
    """The sketchbook's drawings, newly worded each epoch."""

    def __init__(self, folder: Path, count: int, seed: int = 0) -> None:
        self._pictures = drawings(folder, count, seed)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The drawings uint8[n,3,48,48] and a caption of each."""
        numbers = [scene_seed(self._seed, int(i)) for i in indices]
        texts = [caption(sample(number), number * 1009 + epoch) for number in numbers]
        return np.ascontiguousarray(self._pictures[np.asarray(indices)]), texts


def order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch: a function of its arguments alone, so a resumed run goes on in it."""
    return np.random.default_rng((seed, epoch)).permutation(count)

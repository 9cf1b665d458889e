"""Rows of a training set as the batches that the towers take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.train.batches import Batch
from nshot.train.data import Pairs
from nshot.types import Pixels


class Feeder:
    """Makes batches: which rows a step sees, and how they are augmented, follows from seed and step alone.

    Args:
        tokenizer: a ``tokenizers.Tokenizer`` that adds the start and end tokens.
        context: the longest text, in tokens; longer ones are cut and keep their end token.
        mean: of the checkpoint's normalisation, three numbers.
        std: its deviation, three numbers.
        seed: of the order and the augmentation.
        crop: the least share of the area that a random resized crop keeps; 1 is none.
        jitter: how far brightness and saturation vary; 0 is none.
        rank: which of the processes this is.
        processes: how many share each batch.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        context: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        crop: float = 1.0,
        jitter: float = 0.0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(context)
        self._tokenizer = tokenizer
        self._mean, self._std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
        self._seed, self._crop, self._jitter = seed, crop, jitter
        self._rank, self._processes = rank, processes
        self._ordered: tuple[Any, int, Any] = (None, 0, None)  # the epoch that is under way

    def batch(self, pairs: Pairs, size: int, step: int) -> Batch:
        """What this process sees of the ``step``-th batch of ``size`` images."""
        epoch, place = divmod(step, len(pairs) // size)
        if self._ordered[0] is not pairs or self._ordered[1] != epoch:
            self._ordered = (pairs, epoch, pairs.order(self._seed, epoch))
        rows = self._ordered[2][place * size : (place + 1) * size]
        pixels, captions = pairs.batch(rows[self._rank :: self._processes].tolist(), epoch)
        return self.collate(pixels, captions, np.random.default_rng((self._seed, step, self._rank)))

    def batches(self, pairs: Pairs, size: int, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from ``start`` to ``stop``, each prepared while the one before is used."""
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as ahead:
            coming = ahead.submit(self.batch, pairs, size, start)
            for step in range(start + 1, stop + 1):
                ready = coming.result()
                if step < stop:
                    coming = ahead.submit(self.batch, pairs, size, step)
                yield ready

    def collate(
        self, pixels: Pixels, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Batch:
        """Images and captions as tensors; equal captions become one. Augmented where ``rng`` is given."""
        distinct: dict[str, int] = {}
        targets = [distinct.setdefault(text, len(distinct)) for text in captions]
        tokens, ends = self.spelt(list(distinct))
        return Batch(self.normalised(pixels, rng), tokens, ends, torch.tensor(targets))

    def spelt(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions as tokens int64[n,t], padded, and the position int64[n] of each one's end."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(captions))]
        tokens = np.full((len(rows), max(map(len, rows))), rows[0][-1], np.int64)
        for line, ids in zip(tokens, rows, strict=True):
            line[: len(ids)] = ids
        return torch.from_numpy(tokens), torch.tensor([len(ids) - 1 for ids in rows])

    def normalised(self, pixels: Pixels, rng: np.random.Generator | None = None) -> Tensor:
        """Images as float32[n,3,s,s] as the checkpoint wants them; augmented where ``rng`` is given."""
        values = torch.from_numpy(pixels).float()
        if rng is not None:
            values = self._augmented(values, rng)
        return values.mul_(1 / (255 * self._std)).sub_(self._mean / self._std)

    def _augmented(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        if self._crop < 1:
            values = random_resized_crop(values, self._crop, rng)
        if self._jitter:
            light, colour = torch.from_numpy(rng.uniform(-1, 1, (2, len(values), 1, 1, 1)).astype(np.float32))
            grey = values.mean(dim=1, keepdim=True)
            values = (grey + (values - grey) * (1 + self._jitter * colour)) * (1 + self._jitter * light)
            values = values.clamp(0, 255)
        return values


def random_resized_crop(values: Tensor, least: float, rng: np.random.Generator) -> Tensor:
    """A crop of each image, resized to the whole (Szegedy et al., "Going Deeper with Convolutions", 2015).

    Args:
        values: float32[n,3,s,s].
        least: the least share of the area that is kept; sides are between 3:4 and 4:3.
        rng: chooses area, sides and place.
    """
    count = len(values)
    area = rng.uniform(least, 1, count)
    aspect = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), count))
    wide, tall = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    x, y = rng.uniform(-1, 1, count) * (1 - wide), rng.uniform(-1, 1, count) * (1 - tall)
    none = np.zeros(count)
    affine = np.stack([np.stack([wide, none, x], 1), np.stack([none, tall, y], 1)], 1).astype(np.float32)
    grid = F.affine_grid(torch.from_numpy(affine), list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)

"""Rows of a training set as the batches that the towers take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.models.tokenizer import Tokenizer
from nshot.train.batches import Batch
from nshot.train.data import Pairs
from nshot.types import Pixels, Tokens


class Feeder:
    """Makes batches: which rows a step sees, and how they are augmented, follows from seed and step alone.

    Args:
        tokenizer: texts -> tokens; longer ones than it takes are cut and keep their end token.
        ends: which position becomes a text's vector: int64[n,t] -> int64[n].
        seed: of the order and the augmentation.
        crop: the least share of the area that a random resized crop keeps; 1 is none.
        jitter: how far brightness and saturation vary; 0 is none.
        threads: that prepare batches ahead. What takes time in them lets go of Python's lock.
        rank: which of the processes this is.
        processes: how many share each batch.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        ends: Callable[[Tokens], Tokens],
        *,
        seed: int = 0,
        crop: float = 1.0,
        jitter: float = 0.0,
        threads: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self._seed, self._crop, self._jitter, self._threads = seed, crop, jitter, threads
        self._rank, self._processes = rank, processes
        self._ordered: tuple[Any, int, Any] = (None, 0, None)  # the epoch that is under way

    def batch(self, pairs: Pairs, size: int, step: int) -> Batch:
        """What this process sees of the ``step``-th batch of ``size`` images."""
        epoch, place = divmod(step, len(pairs) // size)
        of, number, order = self._ordered
        if of is not pairs or number != epoch:
            order = pairs.order(self._seed, epoch)
            self._ordered = (pairs, epoch, order)
        rows = order[place * size : (place + 1) * size]
        pixels, captions = pairs.batch(rows[self._rank :: self._processes].tolist(), epoch)
        return self.collate(pixels, captions, np.random.default_rng((self._seed, step, self._rank)))

    def batches(self, pairs: Pairs, size: int, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from ``start`` to ``stop``, prepared while the ones before are used."""
        pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            coming: deque[Future[Batch]] = deque()
            for step in range(start, stop):
                coming.append(pool.submit(self.batch, pairs, size, step))
                if len(coming) > self._threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def collate(
        self, pixels: Pixels, captions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Batch:
        """Images and captions as tensors. Augmented where ``rng`` is given.

        Captions that the model cannot tell apart become one, as "Cat" and "cat" do for CLIP.
        """
        spelt, ends = self.spelt(captions)
        distinct: dict[bytes, int] = {}
        targets = [distinct.setdefault(row.tobytes(), len(distinct)) for row in spelt.numpy()]
        first = torch.from_numpy(np.unique(targets, return_index=True)[1])
        tokens, ends = spelt[first], ends[first]
        values, jitter = torch.from_numpy(pixels), None
        if rng is not None and self._crop < 1:
            values = random_resized_crop(values, self._crop, rng)
        if rng is not None and self._jitter:
            jitter = torch.from_numpy(1 + self._jitter * rng.uniform(-1, 1, (len(pixels), 2))).float()
        return Batch(values, tokens, ends, torch.tensor(targets), jitter)

    def spelt(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions as tokens int64[n,t], padded, and the position int64[n] that becomes each one's vector."""
        tokens = self._tokenizer.encode(list(captions), cut=True)
        return torch.from_numpy(tokens), torch.from_numpy(self._ends(tokens))


def random_resized_crop(pixels: Tensor, least: float, rng: np.random.Generator) -> Tensor:
    """A crop of each image, resized to the whole (Szegedy et al., "Going Deeper with Convolutions", 2015).

    Args:
        pixels: uint8[n,3,s,s].
        least: the least share of the area that is kept; sides are between 3:4 and 4:3.
        rng: chooses area, sides and place.
    """
    count, _, size, _ = pixels.shape
    area = rng.uniform(least, 1, count)
    aspect = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), count))
    sides = np.sqrt(np.stack([area * aspect, area / aspect], 1)) * size
    sides = np.clip(sides.round(), 1, size).astype(int)
    corners = (rng.uniform(0, 1, (count, 2)) * (size - sides + 1)).astype(int)
    cropped = torch.empty_like(pixels)
    for image, result, (x, y), (wide, tall) in zip(pixels, cropped, corners, sides, strict=True):
        part = image[None, :, y : y + tall, x : x + wide]
        result.copy_(F.interpolate(part, (size, size), mode="bilinear", align_corners=False)[0])
    return cropped

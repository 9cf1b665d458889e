"""A batch through both towers and back, in pieces: one piece a core, and no more memory than a piece needs.

Two cores each take pieces of their own. A piece's activations stay in that core's cache and no core waits for
the other inside a layer, which is what a matrix product shared by two cores does some hundred times a step.

The loss needs the whole batch's vectors, but a tower's backward pass needs only its own piece's gradient at them.
So a batch larger than memory is encoded twice: once for the vectors, once more, piece by piece, with the graph
(Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nshot.train.towers import image_vectors, text_vectors

Piece = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees.

    Attributes:
        pixels: float32[n,3,s,s], normalised.
        tokens: int64[u,t], the distinct captions, padded.
        ends: int64[u], the position of each caption's end token.
        targets: int64[n], each picture's caption.
    """

    pixels: Tensor
    tokens: Tensor
    ends: Tensor
    targets: Tensor


class Towers:
    """Runs a model's towers over batches, in pieces of ``piece`` pictures, on ``threads`` cores."""

    def __init__(self, model: Any, *, threads: int = 1, piece: int = 64, compiled: bool = False) -> None:
        self.model = model
        self._image_vectors = image_vectors
        if compiled:  # only the tower whose shapes are always the same
            self._image_vectors = torch.compile(image_vectors, dynamic=False)
        self.piece = piece
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._threads = threads

    def warm(self, batch: Batch) -> None:
        """Compiles in one worker, before two of them ask for it at once."""
        part = batch.pixels[: self.piece]
        self._pool.submit(lambda: self._image_vectors(self.model, part).sum().backward()).result()
        self.model.zero_grad(set_to_none=True)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch's picture vectors [n,d] and text vectors [u,d], without a graph."""
        images, texts, order = self._pieces(batch)
        with torch.no_grad():
            vectors = list(self._pool.map(_without_graph, [*images, *texts]))
        return torch.cat(vectors[: len(images)]), torch.cat(vectors[len(images) :])[order]

    def step(
        self, batch: Batch, loss: Callable[[Tensor, Tensor], Tensor], parameters: Sequence[Tensor], *, twice: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the batch's gradient to ``parameters``' ``grad``.

        Args:
            batch: what to encode.
            loss: from picture vectors [n,d] and text vectors [u,d] to a scalar; its own parameters get their
                gradient by its backward pass.
            parameters: the towers' parameters that are trained.
            twice: keep no graph while the vectors are made, and encode again for the gradient.

        Returns:
            the loss and the vectors, all detached.
        """
        images, texts, order = self._pieces(batch)
        pieces = [*images, *texts]
        outputs = list(self._pool.map(_without_graph if twice else _call, pieces))
        found = [output.detach().requires_grad_() for output in outputs]
        image_part, text_part = torch.cat(found[: len(images)]), torch.cat(found[len(images) :])[order]
        value = loss(image_part, text_part)
        value.backward()

        def gradients(i: int) -> tuple[Tensor | None, ...]:
            output = pieces[i]() if twice else outputs[i]
            outputs[i] = found[i]  # lets go of the graph
            return torch.autograd.grad(output, parameters, found[i].grad, allow_unused=True)

        for each in self._pool.map(gradients, range(len(pieces))):
            for parameter, gradient in zip(parameters, each, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return value.detach(), image_part.detach(), text_part.detach()

    def _pieces(self, batch: Batch) -> tuple[list[Piece], list[Piece], Tensor]:
        """The pieces of both towers, and where each text went: short ones go together, to be padded little."""
        model = self.model
        images: list[Piece] = [
            lambda part=part: self._image_vectors(model, part) for part in batch.pixels.split(self.piece)
        ]
        by_length = batch.ends.argsort(stable=True)
        texts: list[Piece] = []
        for rows in by_length.split(self.piece):
            ends = batch.ends[rows]
            tokens = batch.tokens[rows, : int(ends.max()) + 1]
            texts.append(lambda tokens=tokens, ends=ends: text_vectors(model, tokens, ends))
        return images, texts, by_length.argsort()


def _call(piece: Piece) -> Tensor:
    return piece()


def _without_graph(piece: Piece) -> Tensor:
    with torch.no_grad():
        return piece()

"""A batch through both towers and back, in pieces: one per core, and no more memory than a piece needs.

Two cores each take pieces of their own, and no core waits for the other inside a layer, which two cores that
share each matrix product do some hundred times a step.

The loss needs the whole batch's vectors, but a tower's backward pass needs only its own piece's gradient at
them. So a batch larger than memory is encoded twice: once for the vectors, once more, piece by piece, with
the graph (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.train.towers import image_vectors, is_siglip, text_vectors

Piece = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees.

    Attributes:
        pixels: uint8[n,3,s,s]; or float32[n,d], their vectors, where the image tower is locked.
        tokens: int64[u,t], the distinct captions, padded.
        ends: int64[u], the position that becomes each caption's vector: that of its end token, for CLIP.
        targets: int64[n], each image's caption.
        jitter: float32[n,2], what each image's brightness and saturation are multiplied by; None: by 1.
    """

    pixels: Tensor
    tokens: Tensor
    ends: Tensor
    targets: Tensor
    jitter: Tensor | None = None


class Towers:
    """Runs a model's towers over batches, in pieces of ``piece`` rows, on ``threads`` cores.

    ``mean`` and ``std`` are the checkpoint's normalisation, three numbers each. It and the jitter are done on
    the model's device, to which pixels go as bytes. With ``compiled`` the image tower, whose shapes are
    always the same, is fused by ``torch.compile``; with ``bf16`` matrix products are made in bfloat16.
    """

    def __init__(
        self,
        model: Any,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        threads: int = 1,
        piece: int = 64,
        compiled: bool = False,
        bf16: bool = False,
    ) -> None:
        self.model = model
        self.piece = piece
        self.device = next(model.parameters()).device
        self._mean, self._std = (torch.tensor(x, device=self.device).view(3, 1, 1) for x in (mean, std))
        self._images = torch.compile(image_vectors, dynamic=False) if compiled else image_vectors
        self._bf16 = bf16
        self._cold = compiled
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        last = self.model.text_model.head if is_siglip(self.model) else self.model.text_projection
        return int(last.out_features)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8[n,3,s,s] -> float32[n,d], without a graph, not of unit norm; vectors stay what they are."""
        count = len(pixels)
        if pixels.ndim == 2:
            return pixels.to(self.device)
        # whole pieces only: a compiled tower is compiled again for each new size
        padded = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, -count % self.piece))
        images = self._image_pieces(padded, None)
        return torch.cat(list(self._pool.map(_without_graph, images))).float()[:count]

    def encode_texts(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Captions as a ``Batch`` has them -> float32[u,d], without a graph, not of unit norm."""
        texts, order = self._text_pieces(tokens, ends)
        return torch.cat(list(self._pool.map(_without_graph, texts))).float()[order]

    def step(
        self,
        batch: Batch,
        loss: Callable[[Tensor, Tensor], Tensor],
        parameters: Sequence[Tensor],
        *,
        twice: bool = False,
    ) -> Tensor:
        """Adds the batch's gradient to ``parameters``' ``grad``.

        Args:
            batch: what to encode.
            loss: from image vectors [n,d] and text vectors [u,d] to a scalar; its own parameters get their
                gradient by its backward pass.
            parameters: the towers' parameters that are trained.
            twice: keep no graph while the vectors are made, and encode again for the gradient.

        Returns:
            the loss, detached.
        """
        images = self._image_pieces(batch.pixels, batch.jitter)
        texts, order = self._text_pieces(batch.tokens, batch.ends)
        pieces = [*images, *texts]
        if self._cold:  # compile in one worker, before two ask for it at once
            self._pool.submit(pieces[0]).result()
            self._cold = False
        outputs = list(self._pool.map(_without_graph if twice else _call, pieces))
        found = [output.detach().float().requires_grad_() for output in outputs]
        image_part, text_part = torch.cat(found[: len(images)]), torch.cat(found[len(images) :])[order]
        value = loss(image_part, text_part)
        value.backward()

        def gradients(i: int) -> tuple[Tensor | None, ...]:
            output = pieces[i]() if twice else outputs[i]
            outputs[i] = found[i]  # lets go of the graph
            if not output.requires_grad:  # nothing of this tower is trained
                return (None,) * len(parameters)
            towards = found[i].grad.to(output.dtype)
            return tuple(torch.autograd.grad(output, parameters, towards, allow_unused=True))

        for each in self._pool.map(gradients, range(len(pieces))):
            for parameter, gradient in zip(parameters, each, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return value.detach()

    def normalised(self, pixels: Tensor, jitter: Tensor | None = None) -> Tensor:
        """uint8[n,3,s,s] -> float32[n,3,s,s] as the checkpoint wants them, with the jitter of a ``Batch``."""
        values = pixels.float()
        if jitter is not None:
            light, colour = jitter.view(-1, 2, 1, 1, 1).unbind(1)
            grey = values.mean(dim=1, keepdim=True).mul_(light * (1 - colour))
            values = values.mul_(light * colour).add_(grey).clamp_(0, 255)
        return values.mul_(1 / (255 * self._std)).sub_(self._mean / self._std)

    def _image_pieces(self, pixels: Tensor, jitter: Tensor | None) -> list[Piece]:
        if pixels.ndim == 2:
            return [lambda: pixels.to(self.device)]
        parts = pixels.split(self.piece)
        jitters = [()] * len(parts) if jitter is None else [(each,) for each in jitter.split(self.piece)]
        return [self._piece(self._seen, part, *own) for part, own in zip(parts, jitters, strict=True)]

    def _seen(self, model: Any, pixels: Tensor, jitter: Tensor | None = None) -> Tensor:
        return self._images(model, self.normalised(pixels, jitter))

    def _text_pieces(self, tokens: Tensor, ends: Tensor) -> tuple[list[Piece], Tensor]:
        """The pieces, and where each text went: short ones go together, to be padded less."""
        by_length = ends.argsort(stable=True)
        texts = []
        for rows in by_length.split(self.piece):
            longest = int(ends[rows].max())
            texts.append(self._piece(text_vectors, tokens[rows, : longest + 1], ends[rows]))
        return texts, by_length.argsort().to(self.device)

    def _piece(self, tower: Callable[..., Tensor], *inputs: Tensor) -> Piece:
        def run() -> Tensor:
            placed = [each.to(self.device) for each in inputs]
            with torch.autocast(self.device.type, torch.bfloat16) if self._bf16 else nullcontext():
                return tower(self.model, *placed)

        return run


def _call(piece: Piece) -> Tensor:
    return piece()


def _without_graph(piece: Piece) -> Tensor:
    with torch.no_grad():
        return piece()

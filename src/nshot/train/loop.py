"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nshot.errors import TrainingDiverged
from nshot.train import state
from nshot.train.batches import Batch, Towers
from nshot.train.loss import contrastive
from nshot.train.options import Options
from nshot.train.processes import Processes

_SAID_EVERY = 2.0  # seconds between two lines of progress, at least
_BETAS = (0.9, 0.98)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: mean since the last report.
        scale: the temperature's inverse, at most 100.
        recall: retrieval recall@1 on held-out pairs at the last saved state; None before the first.
        images_per_s: since the last report.
        seconds_left: at that rate.
    """

    step: int
    steps: int
    loss: float
    scale: float
    recall: float | None
    images_per_s: float
    seconds_left: float


def groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: gains, biases, single vectors and the temperature do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def rate(step: int, steps: int, warmup: int, highest: float) -> float:
    """The learning rate of a step: a straight warm-up, then half a cosine towards zero."""
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    model: Any,
    towers: Towers,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    lr: float,
    options: Options,
    twice: bool,
    processes: Processes,
    folder: Path,
    recipe: str,
    resume: bool,
    examine: Callable[[], float | None],
    report: Callable[[Progress], None],
) -> None:
    """Train ``model`` in place.

    Args:
        model: transformers' CLIPModel; parameters that need no gradient stay as they are.
        towers: the model's towers.
        batches: this process's batches from a step on.
        steps: optimizer steps in all.
        lr: the highest learning rate.
        options: the rest of how to train.
        twice: encode each batch twice, to hold less.
        processes: those that share each batch.
        folder: where the state is kept.
        recipe: what a kept state must have been made with.
        resume: go on from the kept state.
        examine: recall on held-out pairs, asked for whenever the state is kept.
        report: is told how it goes.

    Raises:
        TrainingDiverged: the loss or its gradient is no longer a number; the state kept before stays.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p is not model.logit_scale]
    optimizer = torch.optim.AdamW(groups(model, options.decay), lr=lr, betas=_BETAS, fused=True)
    start = state.restore(folder, recipe=recipe, model=model, optimizer=optimizer) if resume else 0
    warmup = min(150, max(1, steps // 10)) if options.warmup is None else options.warmup
    saved = said = time.monotonic()
    seen, losses, recall = 0, [0.0], None
    for step, batch in enumerate(batches(start), start):
        optimizer.zero_grad(set_to_none=True)
        value = _gradient(model, towers, batch, weights, twice, processes)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, options.clip))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise TrainingDiverged(
                f"step {step + 1}: the loss is {value}, its gradient {norm}. The last state before is kept "
                f"in {folder}: go on with --resume, or begin anew with a lower --lr or a longer --warmup"
            )
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, warmup, lr)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        seen += len(batch.targets) * processes.count
        losses.append(value)
        now, last = time.monotonic(), step + 1 == steps
        if processes.rank == 0 and (last or now - saved > options.minutes * 60):
            state.save(folder, step=step + 1, recipe=recipe, model=model, optimizer=optimizer)
            recall = examine()
            saved = time.monotonic()
        if processes.rank == 0 and (last or now - said > _SAID_EVERY):
            per_s = seen / max(now - said, 1e-9)
            left = (steps - step - 1) * options.batch / per_s
            mean = sum(losses[1:]) / len(losses[1:])
            scale = float(model.logit_scale.detach().exp())
            report(Progress(step + 1, steps, mean, scale, recall, per_s, left))
            said, seen, losses = time.monotonic(), 0, [0.0]


def _gradient(
    model: Any, towers: Towers, batch: Batch, weights: list[Tensor], twice: bool, processes: Processes
) -> float:
    """Puts the whole batch's gradient into every parameter's ``grad``; returns the loss.

    Each process encodes its own rows. All of them see all vectors and find the same loss, but each keeps only
    the gradient at its own vectors; the parameters' gradients are then added up.
    """

    def loss(images: Tensor, texts: Tensor) -> Tensor:
        scale = model.logit_scale.exp()
        if processes.count == 1:
            return contrastive(images, texts, batch.targets.to(images.device), scale)
        return _shared_loss(images, texts, batch, scale, processes)

    value = towers.step(batch, loss, weights, twice=twice)
    if processes.count > 1:
        for parameter in weights:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([p.grad for p in weights if p.grad is not None])
    return float(value)


def _shared_loss(images: Tensor, texts: Tensor, batch: Batch, scale: Tensor, processes: Processes) -> Tensor:
    """The loss over all processes' vectors, in which only this process's own carry a gradient."""
    all_images = processes.gathered(images.detach())
    all_texts = processes.gathered(texts.detach())
    spelt = processes.gathered(_fixed_width(batch))
    targets = processes.gathered(batch.targets)
    offset, shifted = 0, []
    for part, own in zip(all_texts, targets, strict=True):
        shifted.append(own + offset)
        offset += len(part)
    all_images[processes.rank], all_texts[processes.rank] = images, texts
    # the same caption in two processes is one text, as it is within one of them
    _, merged = torch.unique(torch.cat(spelt), dim=0, return_inverse=True)
    first = torch.full((int(merged.max()) + 1,), len(merged)).scatter_reduce(
        0, merged, torch.arange(len(merged)), "amin"
    )
    return contrastive(torch.cat(all_images), torch.cat(all_texts)[first], merged[torch.cat(shifted)], scale)


def _fixed_width(batch: Batch, width: int = 512) -> Tensor:
    """The captions' tokens up to their ends, the rest -1, in one width for all processes."""
    tokens = torch.full((len(batch.tokens), width), -1, dtype=torch.int64)
    length = batch.tokens.shape[1]
    inside = torch.arange(length) <= batch.ends[:, None]
    tokens[:, :length] = torch.where(inside, batch.tokens, -1)
    return tokens

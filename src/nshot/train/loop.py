"""The training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nshot.train.batches import Batch, Towers
from nshot.train.data import Pairs, order
from nshot.train.loss import contrastive, recall


@dataclass(frozen=True, slots=True)
class Options:
    """How to train."""

    steps: int
    batch: int = 256
    lr: float = 1.5e-3
    warmup: int = 300
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    threads: int = 2
    piece: int = 64
    compiled: bool = False
    minutes: float = 5.0
    log_every: int = 20


def groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: gains, biases and the temperature do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def rate(step: int, options: Options) -> float:
    """The learning rate: a straight warm-up, then half a cosine down to zero."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Feeder:
    """Batches in the order that seed and step give, prepared one ahead."""

    def __init__(self, pairs: Pairs, tokenizer: Any, options: Options, mean: Tensor, std: Tensor) -> None:
        self.pairs, self.tokenizer, self.options = pairs, tokenizer, options
        self.mean, self.std = mean, std

    def prepare(self, step: int) -> Batch:
        """The batch of a step."""
        count, size = len(self.pairs), self.options.batch
        each = count // size
        epoch, place = divmod(step, each)
        rows = order(count, self.options.seed, epoch)[place * size : (place + 1) * size]
        pixels, captions = self.pairs.batch(rows, epoch)
        return self.collate(pixels, captions)

    def collate(self, pixels: Any, captions: list[str]) -> Batch:
        """Pictures and captions as tensors; equal captions become one."""
        distinct: dict[str, int] = {}
        targets = [distinct.setdefault(text, len(distinct)) for text in captions]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(distinct))]
        longest = max(map(len, rows))
        tokens = np.full((len(rows), longest), rows[0][-1], np.int64)
        for line, ids in zip(tokens, rows, strict=True):
            line[: len(ids)] = ids
        ends = torch.tensor([len(ids) - 1 for ids in rows])
        scaled = (torch.from_numpy(pixels).float() / 255 - self.mean) / self.std
        return Batch(scaled, torch.from_numpy(tokens), ends, torch.tensor(targets))

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of the steps from ``start`` to ``stop``."""
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.prepare, start)
            for step in range(start, stop):
                batch = coming.result()
                coming = ahead.submit(self.prepare, min(step + 1, stop - 1))
                yield batch


def fit(
    model: Any,
    feeder: Feeder,
    options: Options,
    folder: Path,
    *,
    resume: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda line: print(json.dumps(line), flush=True),
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    evaluate_every: int = 0,
) -> None:
    """Trains the model in place."""
    torch.set_flush_denormal(True)
    towers = Towers(model, threads=options.threads, piece=options.piece, compiled=options.compiled)
    if options.compiled:
        warm = feeder.prepare(0)
        towers.warm(warm)
    trained = [p for name, p in model.named_parameters() if p.requires_grad and name != "logit_scale"]
    optimizer = torch.optim.AdamW(groups(model, options.decay), lr=options.lr, betas=(0.9, 0.98), fused=True)
    state = folder / "training.pt"
    start = 0
    if resume and state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    saved_at = began = time.monotonic()
    seen, tick = 0, began
    sums = [0.0, 0.0, 0.0]
    for step, batch in enumerate(feeder(start, options.steps), start):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, options)
        optimizer.zero_grad(set_to_none=True)

        def loss(images: Tensor, texts: Tensor, targets: Tensor = batch.targets) -> Tensor:
            return contrastive(images, texts, targets, model.logit_scale.exp())

        value, images, texts = towers.step(batch, loss, trained, twice=False)
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], options.clip)
        if not math.isfinite(float(value)) or not math.isfinite(float(norm)):
            raise RuntimeError(f"step {step}: the loss is {float(value)}; {state} holds the last good state")
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        seen += len(batch.targets)
        sums[0] += float(value)
        sums[1] += recall(images, texts, batch.targets)
        sums[2] += 1
        now = time.monotonic()
        if (step + 1) % options.log_every == 0 or step + 1 == options.steps:
            speed = seen / (now - tick)
            report(
                {
                    "step": step + 1,
                    "loss": round(sums[0] / sums[2], 4),
                    "recall": round(sums[1] / sums[2], 4),
                    "scale": round(float(model.logit_scale.detach().exp()), 2),
                    "norm": round(float(norm), 3),
                    "lr": round(rate(step, options), 6),
                    "per_s": round(speed, 1),
                    "left_min": round((options.steps - step - 1) * options.batch / speed / 60, 1),
                    "min": round((now - began) / 60, 2),
                }
            )
            seen, tick, sums = 0, now, [0.0, 0.0, 0.0]
        if now - saved_at > options.minutes * 60 or step + 1 == options.steps:
            part = state.with_suffix(".part")
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, part
            )
            os.replace(part, state)
            saved_at = time.monotonic()
        if evaluate and evaluate_every and ((step + 1) % evaluate_every == 0 or step + 1 == options.steps):
            report({"step": step + 1, **evaluate(step + 1)})
            tick = time.monotonic()

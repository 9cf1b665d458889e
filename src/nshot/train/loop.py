"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nshot.errors import TrainingDiverged
from nshot.train import state
from nshot.train.batches import Batch, Towers
from nshot.train.exam import Mark
from nshot.train.log import Log
from nshot.train.loss import loss_of
from nshot.train.options import Options
from nshot.train.processes import Processes
from nshot.train.towers import is_siglip

_SAID_EVERY = 2.0  # seconds between two lines of progress, at least
_LOGGED_EVERY = 10  # steps
_BETAS = (0.9, 0.98)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: mean since the last report.
        scale: the temperature's inverse, at most 100 for CLIP.
        recall: share of held-out images nearest to their own text, when last measured; None before.
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


def is_of_loss(name: str) -> bool:
    """Whether a parameter is the loss's own: the temperature, and SigLIP's bias."""
    return name.rpartition(".")[2] in ("logit_scale", "logit_bias")


def rate(step: int, steps: int, warmup: int, highest: float) -> float:
    """The learning rate of a step: a straight warm-up, then half a cosine towards zero."""
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@dataclass(slots=True)
class Best:
    """The weights that did best on held-out images so far, and since how many exams nothing beat them."""

    step: int = 0
    mark: tuple[float, float] = (-1.0, 0.0)
    weights: dict[str, Tensor] | None = None
    misses: int = 0

    def see(self, step: int, mark: Mark, trained: Mapping[str, Tensor]) -> None:
        """Another exam, and the weights that sat it."""
        if (mark.accuracy, mark.certainty) > self.mark:
            self.step, self.mark, self.misses = step, (mark.accuracy, mark.certainty), 0
            self.weights = {name: weight.detach().clone() for name, weight in trained.items()}
        else:
            self.misses += 1


def fit(
    model: Any,
    towers: Towers,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    every: int,
    lr: float,
    options: Options,
    twice: bool,
    processes: Processes,
    folder: Path | None,
    recipe: Mapping[str, Any],
    resume: bool,
    examine: Callable[[], Mark] | None,
    log: Callable[[int], Log] | None,
    report: Callable[[Progress], None],
) -> tuple[int, int]:
    """Train ``model`` in place, up to the weights that did best on held-out images.

    Args:
        model: transformers' CLIPModel or SiglipModel; parameters that need no gradient stay as they are.
        towers: the model's towers.
        batches: this process's batches from a step on.
        steps: optimizer steps in all.
        every: steps between two exams.
        lr: the highest learning rate.
        options: the rest of how to train.
        twice: encode each batch twice, to hold less.
        processes: those that share each batch.
        folder: where the state is kept; None: nowhere.
        recipe: what a kept state must have been made with.
        resume: go on from the kept state.
        examine: how the model does on held-out images; None: there are none, and the last weights are kept.
        log: opens the log at a step; None: there is none.
        report: is told how it goes.

    Returns:
        steps done, and the step of the weights that were kept.

    Raises:
        TrainingDiverged: the loss or its gradient is no longer a number; the state kept before stays.
        RequestError: the state kept is of another run.
        OutputError: the state or the log cannot be written.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = [p for name, p in trained.items() if not is_of_loss(name)]
    optimizer = torch.optim.AdamW(groups(model, options.decay), lr=lr, betas=_BETAS, fused=True)
    warmup = min(150, max(1, steps // 10)) if options.warmup is None else options.warmup
    start, best = 0, Best()
    if folder is not None and resume and (saved := state.restore(folder, recipe, towers.device)):
        start, best = saved["step"], Best(**saved["best"])
        optimizer.load_state_dict(saved["optimizer"])
        _put(trained, saved["model"])
    first, patience = processes.rank == 0, options.patience or math.inf
    logged = log(start) if first and log is not None else None
    kept = said = time.monotonic()
    seen, losses, recall, done = 0, [0.0], None, start
    for step, batch in enumerate(batches(start) if best.misses < patience else (), start):
        optimizer.zero_grad(set_to_none=True)
        value = float(gradient(model, towers, batch, weights, twice, processes))
        norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), options.clip))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise TrainingDiverged(
                f"step {step + 1}: the loss is {value}, its gradient {norm}: begin anew with a lower --lr or "
                "a longer --warmup"
                + (f". The last state before is kept in {folder}" if folder and state.kept(folder) else "")
            )
        now_lr = rate(step, steps, warmup, lr)
        for group in optimizer.param_groups:
            group["lr"] = now_lr
        optimizer.step()
        if not is_siglip(model):  # whose checkpoints have more than CLIP's 100
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
        done, last = step + 1, step + 1 == steps
        seen += len(batch.targets) * processes.count
        losses.append(value)
        examined = examine is not None and (last or done % every == 0)
        if examined and examine is not None:
            mark = examine()
            recall = mark.accuracy
            best.see(done, mark, trained)
            last = last or bool(processes.gathered(torch.tensor([best.misses >= patience]))[0])
        if not first:
            if last:
                break
            continue
        now = time.monotonic()
        per_s = seen / max(now - said, 1e-9)
        scale = float(model.logit_scale.detach().exp())
        if logged and (examined or last or done % _LOGGED_EVERY == 0):
            held = recall if examined else None
            logged.write(
                done, loss=value, learning_rate=now_lr, scale=scale, held_out=held, images_per_s=per_s
            )
        if folder is not None and (last or now - kept > options.minutes * 60):
            own = {name: weight.detach() for name, weight in trained.items()}
            content = {"step": done, "best": asdict(best), "model": own, "optimizer": optimizer.state_dict()}
            state.save(folder, recipe, content)
            kept = time.monotonic()
        if last or now - said > _SAID_EVERY:
            left = 0.0 if last else (steps - done) * options.size / per_s
            report(Progress(done, steps, sum(losses[1:]) / len(losses[1:]), scale, recall, per_s, left))
            said, seen, losses = time.monotonic(), 0, [0.0]
        if last:
            break
    if logged:
        logged.close()
    if best.weights is not None:
        _put(trained, best.weights)
    return done, best.step if best.weights is not None else done


def _put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def gradient(
    model: Any, towers: Towers, batch: Batch, weights: list[Tensor], twice: bool, processes: Processes
) -> Tensor:
    """Puts the whole batch's gradient into every parameter's ``grad``; returns the loss, a scalar.

    Each process encodes its own rows. All of them see all vectors and find the same loss, but each keeps only
    the gradient at its own vectors; the parameters' gradients are then added up.
    """
    merged, targets = _merged(batch, processes)

    def loss(images: Tensor, texts: Tensor) -> Tensor:
        """Over all processes' vectors, of which only this process's own carry a gradient."""
        all_images, all_texts = (processes.gathered(each.detach()) for each in (images, texts))
        all_images[processes.rank], all_texts[processes.rank] = images, texts
        distinct = torch.cat(all_texts)[merged.to(texts.device)]
        return loss_of(model, torch.cat(all_images), distinct, targets.to(images.device))

    value = towers.step(batch, loss, weights, twice=twice)
    if processes.count > 1:
        for parameter in weights:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([p.grad for p in weights if p.grad is not None])
    return value


def _merged(batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
    """Which of all processes' texts are the distinct ones, int64[u], and which of those is each image's.

    The same caption in two processes is one text, as it is within one of them.
    """
    if processes.count == 1:
        return torch.arange(len(batch.tokens)), batch.targets
    spelt, offset, shifted = processes.gathered(_fixed_width(batch)), 0, []
    for part, own in zip(spelt, processes.gathered(batch.targets), strict=True):
        shifted.append(own + offset)
        offset += len(part)
    _, number = torch.unique(torch.cat(spelt), dim=0, return_inverse=True)
    first = torch.full((int(number.max()) + 1,), len(number))
    first = first.scatter_reduce(0, number, torch.arange(len(number)), "amin")
    return first, number[torch.cat(shifted)]


def _fixed_width(batch: Batch, width: int = 512) -> Tensor:
    """The captions' tokens up to their ends, the rest -1, in one width for all processes."""
    tokens = torch.full((len(batch.tokens), width), -1, dtype=torch.int64)
    length = batch.tokens.shape[1]
    inside = torch.arange(length) <= batch.ends[:, None]
    tokens[:, :length] = torch.where(inside, batch.tokens, -1)
    return tokens

"""How fast `nshot train` is beside the plain loop: the same model, batches and machine, turn by turn.

    make parity's python bench/training.py --steps 30 --rounds 3

The plain loop is what a tutorial shows: transformers' CLIPModel with return_loss, AdamW, every default.
``--busy 1`` keeps a core busy with something else meanwhile, as most machines do.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nshot.paths import cache_dir
from nshot.train.batches import Batch, Towers
from nshot.train.checkpoints import SMALL, Start, anew
from nshot.train.data import Sketchbook
from nshot.train.feeding import Feeder
from nshot.train.log import Log
from nshot.train.loop import fit
from nshot.train.options import Options
from nshot.train.processes import Processes


class Mixed(Sketchbook):
    """The drawings without the first lesson, whose captions are shorter than all others."""

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Every row once, as they come."""
        return np.arange(len(self))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--activation", default="gelu", choices=["gelu", "quick_gelu"])
    parser.add_argument("--busy", type=int, default=0, help="other processes that want a core")
    args = parser.parse_args()
    pairs = Mixed(cache_dir(), 20_000)
    config = copy.deepcopy(SMALL)
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = args.activation
    start = anew(config, pairs.corpus(), 0)
    ways: dict[str, Callable[[], float]] = {
        "plain": plain(start, pairs, args.steps, args.batch),
        "nshot": own(start, pairs, args.steps, args.batch),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    try:
        for _ in range(args.rounds):
            for name, measure in ways.items():
                rates[name].append(measure())
                print(f"{name}: {rates[name][-1]:.0f} images/s", flush=True)
    finally:
        for other in others:
            other.kill()
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates["plain"], strict=True))
        each = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"{name:16} {statistics.median(found):6.0f} images/s ({each})  {ratio:.2f} x plain")


def plain(start: Start, pairs: Sketchbook, steps: int, size: int) -> Callable[[], float]:
    """The loop of every tutorial."""
    model = copy.deepcopy(start.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (start.mean, start.std))

    def measure() -> float:
        begun = time.perf_counter()
        for step in range(steps):
            pixels, captions = pairs.batch(range(step * size, (step + 1) * size), 0)
            tokens = torch.from_numpy(start.tokenizer.encode(captions))
            tokens = tokens[:, : int(start.config.text.ends(tokens.numpy()).max()) + 1]
            values = (torch.from_numpy(pixels).float() / 255 - mean) / std
            loss = model(input_ids=tokens, pixel_values=values, return_loss=True).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return steps * size / (time.perf_counter() - begun)

    return measure


def own(start: Start, pairs: Sketchbook, steps: int, size: int) -> Callable[[], float]:
    """`nshot train`'s loop."""
    model = copy.deepcopy(start.model).train()
    towers = Towers(model, mean=start.mean, std=start.std, threads=torch.get_num_threads())
    feeder = Feeder(start.tokenizer, start.config.text.ends)
    warm = [feeder.batch(pairs, size, 0)]

    def run(batches: Callable[[int], Iterator[Batch]], steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                model,
                towers,
                batches,
                steps=steps,
                lr=1e-3,
                options=Options(batch=size),
                twice=False,
                processes=Processes(),
                folder=Path(folder),
                recipe={},
                resume=False,
                examine=None,
                every=steps,
                log=lambda step: Log(Path(folder) / "log.csv", None, step),
                report=lambda progress: None,
            )

    run(lambda first: iter(warm), 1)

    def measure() -> float:
        begun = time.perf_counter()
        run(lambda first: feeder.batches(pairs, size, first, steps), steps)
        return steps * size / (time.perf_counter() - begun)

    return measure


if __name__ == "__main__":
    main()

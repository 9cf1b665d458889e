"""What feeds training: images/s with crop and jitter at 224 px, and memory for ten times the images.

    make parity's python bench/feeding.py            # one thread as it was, one thread and two now
    make parity's python bench/feeding.py --memory   # 50,000 training images of 224 px against 5,000

"As it was" is the one thread that nshot had first, written out: float32 on the processor, an affine grid,
jitter and normalisation before the batch is handed over. Rates are per second of wall-clock time, taken in
turns in one run, best of three; jitter and normalisation are now the tower's, on its device, and are counted
here.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.train.batches import Towers
from nshot.train.checkpoints import SMALL, anew
from nshot.train.data import Images
from nshot.train.feeding import Feeder
from nshot.train.rows import RowFile

SIZE, BATCH, STEPS = 224, 64, 6
CROP, JITTER = 0.6, 0.2


def main() -> None:
    formatted = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatted)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.images:
        epoch(args.images)
    elif args.memory:
        memory()
    else:
        rates()


def rates() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        images = filled(Path(name) / "images.raw", BATCH * STEPS)
        start = anew(SMALL, ["a thing"], 0)
        towers = Towers(start.model, mean=start.mean, std=start.std)

        def now(threads: int) -> Iterator[Tensor]:
            feeder = Feeder(
                start.tokenizer, start.config.text.ends, crop=CROP, jitter=JITTER, threads=threads
            )
            for batch in feeder.batches(images, BATCH, 0, STEPS):
                yield towers.normalised(batch.pixels, batch.jitter)

        ways: dict[str, Callable[[], Iterator[Tensor]]] = {
            "one thread as it was": lambda: before(images),
            "one thread": lambda: now(1),
            "two threads": lambda: now(2),
        }
        best = dict.fromkeys(ways, 0.0)
        for _ in range(3):
            for way, run in ways.items():
                begun = time.perf_counter()
                count = sum(len(values) for values in run())
                best[way] = max(best[way], count / (time.perf_counter() - begun))
    first = best["one thread as it was"]
    for way, rate in best.items():
        print(f"{way:22} {rate:7.0f} images/s  {rate / first:5.1f} x")


def before(images: Images) -> Iterator[Tensor]:
    """The first thread that fed training: a batch ahead, in float32."""
    mean, std = (torch.full((3, 1, 1), value) for value in (0.45, 0.27))

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        pixels, _ = images.batch(range(step * BATCH, (step + 1) * BATCH), 0)
        values = cropped(torch.from_numpy(pixels).float(), rng)
        light, colour = torch.from_numpy(rng.uniform(-1, 1, (2, len(values), 1, 1, 1)).astype(np.float32))
        grey = values.mean(dim=1, keepdim=True)
        values = (grey + (values - grey) * (1 + JITTER * colour)) * (1 + JITTER * light)
        return values.clamp(0, 255).mul_(1 / (255 * std)).sub_(mean / std)

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as ahead:
        coming = [ahead.submit(batch, step) for step in range(STEPS)]
        for each in coming:
            yield each.result()


def cropped(values: Tensor, rng: np.random.Generator) -> Tensor:
    count = len(values)
    area = rng.uniform(CROP, 1, count)
    aspect = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), count))
    wide, tall = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    x, y = rng.uniform(-1, 1, count) * (1 - wide), rng.uniform(-1, 1, count) * (1 - tall)
    none = np.zeros(count)
    affine = np.stack([np.stack([wide, none, x], 1), np.stack([none, tall, y], 1)], 1).astype(np.float32)
    grid = F.affine_grid(torch.from_numpy(affine), list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)


def memory() -> None:
    """The most memory of a process that goes through an epoch, and through an exam, of each size."""
    found = {}
    for count in (5_000, 50_000):
        command = [sys.executable, __file__, "--images", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[count] = int(done.stdout)
        print(f"{count:6} images of {SIZE} px: {found[count] / 1024:.0f} MB at most")
    print(f"more: {(found[50_000] - found[5_000]) / 1024:.0f} MB")


def epoch(count: int) -> None:
    """Every batch of an epoch, and the held-out images as an exam reads them; prints kilobytes."""
    with tempfile.TemporaryDirectory() as name:
        training, held = filled(Path(name) / "images.raw", count).split(0.05, 0)
        start = anew(SMALL, ["a thing"], 0)
        feeder = Feeder(start.tokenizer, start.config.text.ends, crop=CROP, jitter=JITTER)
        for _ in feeder.batches(training, BATCH, 0, len(training) // BATCH):
            pass
        for first in range(0, len(held), 512):
            held.read(first, first + 512)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def filled(path: Path, count: int) -> Images:
    """Random pixels, decoded already, with a caption each."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, count, 100):
            file.write(rng.integers(0, 256, (min(100, count - start), 3, SIZE, SIZE), np.uint8).tobytes())
    pixels = RowFile(path, (3, SIZE, SIZE), "uint8")
    return Images(pixels, [[f"thing {number}"] for number in range(count)], np.arange(count))


if __name__ == "__main__":
    main()

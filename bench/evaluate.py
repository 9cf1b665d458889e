"""How long `nshot evaluate` takes on 10,000 stored images and 100 labels, page included; and its memory.

    python bench/evaluate.py [--images 10000] [--labels 100]

The images are noise and the checkpoint is random: the time after the vectors are stored does not depend on
what they show. The vectors have 512 numbers, as ViT-B/32's.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkpoints import tiny_checkpoint  # noqa: E402


def main() -> None:
    """Make the images, store their vectors, then measure a second run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--labels", type=int, default=100)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        model = tiny_checkpoint(top / "model", projection_dim=512)
        rng = np.random.default_rng(0)
        for number in range(asked.images):
            path = top / "data" / f"label {number % asked.labels}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((640, 480)).save(path)
        command = [sys.executable, "-m", "nshot", "evaluate", str(top / "data")]
        command += ["--model", str(model), "-o", str(top / "report"), "-q"]
        environment = os.environ | {"NSHOT_CACHE": str(top / "cache")}
        for name in ("first run", "stored"):
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            page = (top / "report" / "index.html").stat().st_size / 1e6
            print(f"{name}: {seconds:.1f} s, peak {peak:.0f} MB so far, page {page:.1f} MB", flush=True)


if __name__ == "__main__":
    main()

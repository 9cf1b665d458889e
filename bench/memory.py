"""Peak memory of `nshot classify` over many images: new labels, known labels, and weights in 8 bits.

    python bench/memory.py CHECKPOINT --images 4000

CHECKPOINT is a full-size one, such as ViT-B/32 with any weights. Images of 640x480 are made once, under
bench/out. A first run compiles and is not counted; then each case runs in a process of its own, with a store
that knows the labels or one that knows nothing, and the peak is what the system says of that process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "out" / "memory"
LABELS = "cat, dog, church, fish, guitar, shirt, elephant, house, person, chain saw"
RUN = """
import resource, sys
from nshot import cli
status = cli.run(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(status, peak // (1000 if sys.platform != "darwin" else 1000000), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=4000)
    args = parser.parse_args()
    many = images(args.images)
    found = {}
    for precision in ("f32", "f32-small"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store.sqlite"
            one = next(many.iterdir())
            peak(args.model, one, precision, Path(folder) / "other.sqlite")  # compiles
            if precision == "f32":
                found["new labels"] = peak(args.model, many, precision, store)
                store.unlink()
            peak(args.model, one, precision, store)  # the labels are known now
            found["known labels" if precision == "f32" else "weights in 8 bits"] = peak(
                args.model, many, precision, store
            )
    print(json.dumps({"images": args.images, "peak MB": found}, indent=1))


def images(count: int) -> Path:
    """A folder of so many JPEGs of 640x480, from seeds."""
    folder = OUT / str(count)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if not path.exists():
            coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=85)
    return folder


def peak(model: str, source: Path, precision: str, store: Path) -> int:
    """MB."""
    asked = [str(source), "--labels", LABELS, "--model", model, "--precision", precision]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            RUN,
            "classify",
            *asked,
            "--store",
            str(store),
            "--format",
            "jsonl",
            "--quiet",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    status, found = map(int, done.stderr.split()[-2:])
    if status:
        raise SystemExit(done.stderr)
    return found


if __name__ == "__main__":
    main()

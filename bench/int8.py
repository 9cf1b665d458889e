"""int8 on the sketchbook: how many answers stay those of f32, and how many are right in both.

    python bench/int8.py              # needs the int8 extra

The form is calibrated on 300 drawings and asked about four sets of others: one thing of pairs that training
saw, of pairs that it never saw, of both; and drawings of which a quarter show two or three things, in which
the first one is counted as right. 144 labels, two prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from typing import Any

import numpy as np

SETS = {
    "seen pairs": 21_000_000,
    "held-out pairs": 22_000_000,
    "all pairs": 23_000_000,
    "several": 24_000_000,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="drawings of each set")
    parser.add_argument("--calibrate", choices=["one", "several"], default="several")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NSHOT_CACHE"] = cache
        print(json.dumps(measured(args.images, args.calibrate), indent=1))


def measured(count: int, calibrate: str) -> dict[str, Any]:
    """The figures."""
    import nshot
    from nshot import encoders
    from nshot.encoders import int8
    from nshot.models.checkpoint import find
    from nshot.sketchbook import COLOURS, HELD_OUT_PAIRS, PAIRS, SEEN_PAIRS, SHAPES, draw, sample

    model = nshot.load("sketchbook", precision="f32")
    labels = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    asked = {
        "a photo of a {}": nshot.zero_shot(model, labels),
        "a picture of a {}": nshot.zero_shot(model, labels, ["a picture of a {}"]),
    }

    def drawn(seed: int, count: int, pairs: Any, several: float) -> tuple[Any, Any]:
        scenes = [sample(seed + i, pairs=pairs, several=several) for i in range(count)]
        right = [labels.index(f"{each.things[0].colour} {each.things[0].shape}") for each in scenes]
        return np.stack([model.preprocessor(draw(scene)) for scene in scenes]), np.array(right)

    checkpoint = find("sketchbook")
    share = {"one": 0.0, "several": 0.25}[calibrate]
    int8.quantise(checkpoint, drawn(26_000_000, 300, PAIRS, share)[0])
    both = [encoders.load(checkpoint, device="cpu", precision=name) for name in ("f32", "int8")]
    found: dict[str, Any] = {"calibrated on drawings with": f"{calibrate} thing(s)"}
    pairs = {"seen pairs": SEEN_PAIRS, "held-out pairs": HELD_OUT_PAIRS}
    for name, seed in SETS.items():
        pixels, right = drawn(seed, count, pairs.get(name, PAIRS), 0.25 if name == "several" else 0.0)
        exact, small = (encoder.encode_images(pixels) for encoder in both)
        cosines = (exact * small).sum(axis=1)
        found[name] = {"cosine, 1 % below": round(float(np.quantile(cosines, 0.01)), 5)}
        for prompt, classifier in asked.items():
            was, now = (classifier.logits(each).argmax(axis=1) for each in (exact, small))
            found[name][prompt] = {
                "agreement": round(float((was == now).mean()), 4),
                "top-1 f32": round(float((was == right).mean()), 4),
                "top-1 int8": round(float((now == right).mean()), 4),
            }
    times = int8.timed(dict(zip(("f32", "int8"), both, strict=True)), pixels)
    found["processor ms per image"] = {name: round(each, 3) for name, each in times.items()}
    return found


if __name__ == "__main__":
    main()

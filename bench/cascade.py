"""The promise of a cascade on the sketchbook: how often it is kept, over random draws of the learning images.

    python bench/first_stage.py bench/out/first            # needs torch; makes the first stage
    python bench/cascade.py bench/out/first --splits 100

4000 drawings, 144 labels. In each split 500 are drawn to learn the margin, and all others are answered: by
the first stage where it is sure, else by the shipped model. Kept: at least 99 % of those answers are the
shipped model's. Operations are those of both towers' products, counted. Beside it, as a peer, the threshold
of conformal risk control (Angelopoulos et al. 2022) on the same draws, which promises the mean alone.

``--shrunk 24`` puts the shipped model itself first, over images that were shrunk to 24 pixels, at the count
of its tower over so few: a stand-in for a first stage that agrees more often than the one above.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import nshot
from nshot.decision.staging import THRESHOLDS, check, learn, margins_of
from nshot.embedder import Embedder
from nshot.models.operations import gflop
from nshot.sketchbook import COLOURS, PAIRS, SEEN_PAIRS, SHAPES, draw, sample

BICUBIC = Image.Resampling.BICUBIC
_FIRST_SEED = 9_500_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", help="a checkpoint; with --shrunk, the one whose operations are counted")
    parser.add_argument("--shrunk", type=int, metavar="PIXELS")
    parser.add_argument("--pairs", choices=["all", "seen"], default="all", help="what is drawn")
    parser.add_argument("--last", default="sketchbook")
    parser.add_argument("--agree", type=float, default=0.99)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--learning", type=int, default=500)
    parser.add_argument("--splits", type=int, default=100)
    args = parser.parse_args()
    pairs = PAIRS if args.pairs == "all" else SEEN_PAIRS
    images = [draw(sample(_FIRST_SEED + i, pairs=pairs, several=0)) for i in range(args.images)]
    first, last = (nshot.load(name, precision="f32") for name in (args.first, args.last))
    large = _logits(last, images)
    if args.shrunk:
        small = _logits(last, [each.resize((args.shrunk, args.shrunk), BICUBIC) for each in images])
    else:
        small = _logits(first, images)
    margins, same = margins_of(small), small.argmax(axis=1) == large.argmax(axis=1)
    cost = gflop(first.checkpoint.config.vision) / gflop(last.checkpoint.config.vision)
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {"binomial tests": [], "conformal risk control": []}
    for _ in range(args.splits):
        rows = rng.permutation(args.images)
        learning, rest = rows[: args.learning], rows[args.learning :]
        for name, rule in (("binomial tests", learn), ("conformal risk control", _mean_alone)):
            threshold = rule(margins[learning], same[learning], args.agree)
            checked = check(margins[rest], same[rest], threshold)
            found[name].append((checked.agreement, checked.went_on))
    told: dict[str, object] = {
        "images": args.images,
        "both answer alike": round(float(same.mean()), 4),
        "operations of the first stage": round(cost, 4),
    }
    for name, each in found.items():
        agreements, went_on = np.array(each).T
        told[name] = {
            "splits that keep the promise": int((agreements >= args.agree).sum()),
            "agreement, mean": round(float(agreements.mean()), 4),
            "went on, median": round(float(np.median(went_on)), 4),
            "times fewer operations, median": round(float(np.median(1 / (cost + went_on))), 2),
            "times fewer operations, 10 % below": round(float(np.quantile(1 / (cost + went_on), 0.1)), 2),
        }
    print(json.dumps(told, indent=1))


def _logits(model: Embedder, images: list[Any]) -> NDArray[np.float64]:
    labels = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return nshot.zero_shot(model, labels, ["a picture of a {}"]).logits(model.embed(images).vectors)


def _mean_alone(margins: NDArray[np.float64], same: NDArray[np.bool_], agree: float) -> float:
    """The smallest threshold whose corrected mean loss stays under 1 - agree."""
    wrong, found = margins[~same], math.inf
    for threshold in THRESHOLDS:
        if ((wrong >= threshold).sum() + 1) / (len(margins) + 1) > 1 - agree:
            break
        found = threshold
    return found


if __name__ == "__main__":
    main()

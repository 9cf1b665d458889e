"""Fine-tuning the sketchbook's model on things it has never seen, beside `nshot fit`; needs torch.

    make parity's python bench/finetune.py

Target: four new things (cup, key, mushroom, umbrella), all colours and styles seen, 100 drawings each. Known:
the twelve shapes of its training. Both are measured on new drawings; all options are the defaults.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import nshot
from nshot.sketchbook import COLOURS, NEW_SHAPES, SHAPES, draw, sample
from nshot.train import Options, train

_FIRST_SEED = 7_000_000_000_000
_TEMPLATE = "a picture of a {}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--each", type=int, default=100, help="drawings of each new thing")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--part", choices=["all", "text", "projections"])
    parser.add_argument("--lora", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_classes(folder / "target", NEW_SHAPES, args.each, 0)
        draw_classes(folder / "untouched", SHAPES, 40, 1_000_000)
        draw_classes(folder / "new", NEW_SHAPES, 250, 2_000_000)
        draw_classes(folder / "known", SHAPES, 80, 3_000_000)
        report = train(
            folder / "target",
            folder / "out",
            start=args.model,
            options=Options(lr=args.lr, part=args.part, lora=args.lora),
            untouched=folder / "untouched",
            templates=[_TEMPLATE],
        )
        print(
            f"{report.images} images, {report.steps} steps, written: blend {report.share} ({report.reason})"
        )
        for row, figures in report.figures.items():
            print(f"{row:12} " + "  ".join(f"{what} {figure:.3f}" for what, figure in figures.items()))
        print(report.worth)
        for label, model in (("zero-shot", args.model), ("fine-tuned", folder / "out")):
            clip = nshot.load(model)
            found = (accuracy(clip, folder / each) for each in ("new", "known"))
            print(f"{label}, new drawings: " + ", ".join(f"{each:.3f}" for each in found))


def accuracy(clip: nshot.Embedder, folder: Path) -> float:
    """The share of a folder's drawings nearest to their own label's prompt."""
    names = sorted(path.name for path in folder.iterdir())
    texts = clip.embed_texts([_TEMPLATE.format(name) for name in names])
    right = []
    for place, label in enumerate(names):
        vectors = np.asarray(clip.embed([str(path) for path in sorted((folder / label).iterdir())]))
        right.append(np.argmax(vectors @ texts.T, axis=1) == place)
    return float(np.concatenate(right).mean())


def draw_classes(folder: Path, shapes: Sequence[str], each: int, first: int) -> None:
    """A folder of images for each shape, in every colour and every style that training sees."""
    for place, shape in enumerate(shapes):
        (folder / shape).mkdir(parents=True)
        for number in range(each):
            seed = _FIRST_SEED + first + place * 1000 + number
            scene = sample(seed, pairs=[(colour, shape) for colour in COLOURS], several=0)
            draw(scene).save(folder / shape / f"{number:03}.png")


if __name__ == "__main__":
    main()

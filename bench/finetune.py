"""Fine-tuning the sketchbook's model on things it has never seen, and what that costs: with torch.

    make parity's python bench/finetune.py --model sketchbook

Target: four new things (cup, key, mushroom, umbrella), all colours and styles seen, 60 drawings each, a
quarter of them held out. Untouched: the twelve shapes it knows. Zero-shot, fine-tuned, blended side by side.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nshot.sketchbook import COLOURS, NEW_SHAPES, SHAPES, draw, sample
from nshot.train import Options, train

_FIRST_SEED = 7_000_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--each", type=int, default=60, help="drawings of each new thing")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--blend", type=float, default=0.5)
    parser.add_argument("--part", default="all", choices=["all", "projections"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_classes(folder / "target", NEW_SHAPES, args.each, 0)
        draw_classes(folder / "untouched", SHAPES, 80, 1_000_000)
        options = Options(epochs=args.epochs, batch=32, lr=args.lr, part=args.part)
        report = train(
            folder / "target",
            folder / "out",
            start=args.model,
            options=options,
            blend=args.blend,
            held_out=0.25,
            untouched=folder / "untouched",
            templates=["a picture of a {}"],
        )
    print(f"{report.images} images, {report.steps} steps, lr {args.lr:g}, {args.part}")
    for row, figures in report.figures.items():
        print(f"{row:12} " + "  ".join(f"{what} {figure:.3f}" for what, figure in figures.items()))


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

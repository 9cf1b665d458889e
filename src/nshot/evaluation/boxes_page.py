"""The page of measured boxes: figures per label, and images with right, missed and false boxes on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from nshot.bounded import read_bytes
from nshot.errors import ImageError
from nshot.evaluation.boxes import BoxedImage, BoxEvaluation, judged
from nshot.images.prepare import load
from nshot.pages.report import (
    Card,
    Cell,
    Figure,
    cards,
    facts,
    headline,
    number,
    page,
    percent,
    section,
    table,
    thumbnail,
)
from nshot.types import Limits

_SHOWN = 60
_SIDE = 360
_COLOURS = {"right": "#1a9850", "missed": "#4575b4", "false": "#d73027"}


def write(evaluation: BoxEvaluation, run: Mapping[str, object], limits: Limits) -> str:
    """The page; the images with most mistakes come first."""
    head = headline(
        Figure(percent(evaluation.ap50).content, "AP50", "boxes that overlap by a half"),
        Figure(percent(evaluation.ap).content, "AP50:95", "COCO's average precision"),
    )
    rows: list[Sequence[Cell | str | int]] = []
    for label, each in evaluation.figures.items():
        learnt = evaluation.thresholds.of.get(label)
        threshold = Cell("–", None) if learnt is None else number(learnt.score)
        missed = Cell("–", None) if learnt is None else percent(learnt.missed)
        rows.append([label, each.boxes, percent(each.ap50), percent(each.ap), threshold, missed])
    heads = ["label", "boxes", "AP50", "AP50:95", "threshold", '"absent" is wrong']
    return page(
        f"Boxes in {run['data']}",
        head,
        section(
            "Labels",
            table(heads, rows),
            note="The threshold is the score with the best F1. Of images that show a label, the share in "
            'which no box reached it is how often "absent" is wrong; for that, thresholds come from others.',
        ),
        section(
            "Images",
            cards(_cards(evaluation, limits)),
            note="At those thresholds: right boxes are green, false ones red, missed ones blue. "
            f"The {_SHOWN} images with most mistakes at most.",
        ),
        section("What was run", facts(run)),
        subtitle=f"{len(evaluation.images):,} images, {len(evaluation.labels):,} labels",
    )


def _cards(evaluation: BoxEvaluation, limits: Limits) -> list[Card]:
    def mistakes(image: BoxedImage) -> int:
        return sum(verdict != "right" for verdict, *_ in judged(image, evaluation.thresholds))

    first = sorted(evaluation.images, key=mistakes, reverse=True)[:_SHOWN]
    return [_card(image, evaluation, limits) for image in first]


def _card(image: BoxedImage, evaluation: BoxEvaluation, limits: Limits) -> Card:
    said = judged(image, evaluation.thresholds)
    counts = {name: sum(verdict == name for verdict, *_ in said) for name in _COLOURS}
    title = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to find"
    lines = [] if image.found is not None else ["it has no answer"]
    tone = "bad" if counts["missed"] or counts["false"] else "good"
    return Card(_drawn(image, said, limits), title, lines, tone, image.file)  # type: ignore[arg-type]


def _drawn(
    image: BoxedImage, said: list[tuple[str, str, tuple[float, ...], float]], limits: Limits
) -> str | None:
    try:
        shown: Image.Image = load(read_bytes(image.path, limits.max_bytes), limits, side=_SIDE).image
    except (OSError, ImageError):
        return None
    shown = shown.copy()
    across, down = shown.width / image.size[0], shown.height / image.size[1]
    pen = ImageDraw.Draw(shown)
    for verdict, label, (x, y, width, height), score in reversed(said):
        left, top = x * across, y * down
        right, bottom = max(left, left + width * across - 1), max(top, top + height * down - 1)
        pen.rectangle((left, top, right, bottom), outline=_COLOURS[verdict], width=2)
        words = label if verdict == "missed" else f"{label} {score:.2f}"
        pen.text((left + 3, top + 2), words.encode("latin-1", "replace").decode("latin-1"), _COLOURS[verdict])
    return thumbnail(shown, _SIDE)

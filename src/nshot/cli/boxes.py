"""`nshot evaluate --boxes`: how good the boxes are that nshot locate found."""

from __future__ import annotations

import json
from pathlib import Path

from nshot.cli.options.talk import echo
from nshot.types import Limits


def evaluate(annotations: Path, found: Path, folder: Path | None, limits: Limits) -> int:
    """Measure boxes, print the figures, and write the report."""
    from nshot.atomic import write_bytes
    from nshot.evaluation.boxes import evaluate_boxes, read_boxes
    from nshot.evaluation.boxes_page import write

    images, labels = read_boxes(annotations, found)
    evaluation = evaluate_boxes(images, labels)
    width = max(len("all labels"), *(len(label) for label in labels))
    echo(f"{'label':{width}}  boxes   AP50  AP50:95  threshold  absent is wrong")
    for label, each in evaluation.figures.items():
        learnt = evaluation.thresholds.of.get(label)
        told = "" if learnt is None else f"{learnt.score:9.3f}  {100 * learnt.missed:13.1f} %"
        echo(f"{label:{width}}  {each.boxes:5}  {each.ap50:5.3f}  {each.ap:7.3f}  {told}".rstrip())
    boxes = sum(each.boxes for each in evaluation.figures.values())
    echo(f"{'all labels':{width}}  {boxes:5}  {evaluation.ap50:5.3f}  {evaluation.ap:7.3f}")
    unanswered = sum(image.found is None for image in images)
    if unanswered:
        echo(
            f"nshot: {unanswered} of {len(images)} images have no answer, and count as if nothing was found",
            err=True,
        )
    if folder is not None:
        run = {
            "data": str(annotations),
            "boxes": str(found),
            "images": len(images),
            "answered": len(images) - unanswered,
        }
        content = json.dumps(evaluation.to_dict() | {"run": run}, ensure_ascii=False, indent=1)
        write_bytes(folder / "report.json", content.encode())
        write_bytes(folder / "thresholds.json", evaluation.thresholds.to_json().encode())
        write_bytes(folder / "index.html", write(evaluation, run, limits).encode())
    return 1 if unanswered else 0

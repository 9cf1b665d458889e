"""The evaluation of a tree of labels as one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from nshot.errors import ImageError
from nshot.evaluation.again import again
from nshot.evaluation.page import failures
from nshot.evaluation.placed import PlacedEvaluation
from nshot.images.prepare import load
from nshot.images.sources import Source
from nshot.pages import charts
from nshot.pages.engine import Html
from nshot.pages.report import (
    Card,
    Cell,
    Figure,
    between,
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

_WORST = 30  # wrong answers that are listed, at most
_NODES, _EACH = 24, 3  # nodes whose images are shown, the most frequent first, and images of each
_SIDE = 192


def thumbnails(data: Iterable[Source], evaluation: PlacedEvaluation, limits: Limits) -> dict[int, str]:
    """Row -> a small image as a data URI, for the rows that the page shows; the set is listed once more."""
    found: dict[int, str] = {}
    rows = [*_worst(evaluation), *(row for own in _by_node(evaluation).values() for row in own)]
    for row, source in again(data, evaluation.images, rows):
        with suppress(ImageError):  # gone since it was embedded: its card says so
            found[row] = thumbnail(load(source.read(), limits, draft=2 * _SIDE, side=_SIDE).image, _SIDE)
    return found


def write(
    evaluation: PlacedEvaluation, run: Mapping[str, object], *, thumbs: Mapping[int, str] | None = None
) -> str:
    """The page.

    Args:
        evaluation: what is shown.
        run: what was run, with what; the "data" and the "model" also head the page.
        thumbs: row -> data URI; None: no images are shown.
    """
    e = evaluation
    return page(
        f"Evaluation of {run.get('model', 'a classifier')}",
        _headline(e),
        _levels(e),
        _curve(e),
        _wrong(e),
        _errors(e, thumbs) if thumbs is not None else Html(),
        _nodes(e, thumbs) if thumbs is not None else Html(),
        failures(e.images),
        section("What was run", facts(run)),
        subtitle=", ".join(
            [
                f"{len(e.images):,} images",
                f"a tree of {len(e.asked.tree.leaves):,} leaves",
                *([str(run["data"])] if "data" in run else []),
            ]
        ),
    )


def _headline(e: PlacedEvaluation) -> Html:
    f, placing = e.figures, e.asked.placing
    asked = (
        f"every image is answered at depth {e.asked.rank}"
        if e.asked.rank is not None
        else "not calibrated"
        if placing is None
        else f"{100 * placing.coverage:g} % were asked for"
    )
    figures = [
        Figure(
            percent(f["covered"]).content,
            "of the answers contain the truth",
            f"95 % interval {between(*e.interval)}; {asked}",
        ),
        Figure(
            number(f["depth"], 2).content, "mean depth of the answers", f"the tree has {e.asked.tree.depth}"
        ),
        Figure(percent(f["exact"]).content, "are the image's own label"),
        Figure(
            number(f["distance"], 2).content,
            "mean distance",
            "edges of the tree from the answer to the image's own label",
        ),
        Figure(
            percent(f["leaf_right"]).content,
            "of the best leaves are right",
            f"mean distance {number(f['leaf_distance'], 2).content}",
        ),
    ]
    left = f"{e.left_out:,} images without exactly one label of the tree were left out." if e.left_out else ""
    return section("Answers", headline(*figures), note=left)


def _levels(e: PlacedEvaluation) -> Html:
    rows = [
        (
            level.depth,
            level.images,
            percent(level.right),
            Cell(charts.whisker(level.right, *level.interval, span=(0, 1)), level.right)
            if level.images
            else Cell("–"),
            level.answers,
            percent(level.right_of_answers),
        )
        for level in e.levels
    ]
    heads = (
        "depth",
        "images that lie so deep",
        "right at this depth",
        "95 % interval",
        "answers of this depth",
        "of these contain the truth",
    )
    note = "Right at this depth: where every image is answered with the best node of that depth."
    return section("Per depth", table(heads, rows), note=note)


def _curve(e: PlacedEvaluation) -> Html:
    chart = charts.lines(
        "Depth against coverage",
        [charts.Series("answers", [t.depth for t in e.curve], [t.covered for t in e.curve])],
        charts.Axis("mean depth of the answers", 0, None),
        charts.Axis("answers that contain the truth", None, 1, share=True),
        legend=False,
    )
    note = "Each dot is a threshold: the deeper the answers go, the less often they contain the truth."
    return section("How deep against how often right", chart, note=note)


def _worst(e: PlacedEvaluation) -> list[int]:
    """The rows of the answers that are farthest off."""
    return [row for row in (-e.distance).argsort(kind="stable").tolist() if not e.covered[row]][:_WORST]


def _by_node(e: PlacedEvaluation) -> dict[str, list[int]]:
    """A few rows of each node that is answered most, the surest first."""
    found: dict[str, list[int]] = {}
    for row in (-e.scores).argsort(kind="stable").tolist():
        found.setdefault("/".join(e.answers[row]), []).append(row)
    most = sorted(found, key=lambda node: -len(found[node]))[:_NODES]
    return {node: found[node][:_EACH] for node in most}


def _card(e: PlacedEvaluation, row: int, thumbs: Mapping[int, str]) -> Card:
    answer, own = "/".join(e.answers[row]) or "no root is sure", "/".join(e.truth[row])
    return Card(
        image=thumbs.get(row),
        title=answer,
        lines=[f"own: {own}"],
        tone="good" if e.covered[row] else "bad",
        hint=e.images.sources[row],
    )


def _errors(e: PlacedEvaluation, thumbs: Mapping[int, str]) -> Html:
    worst = _worst(e)
    return section("Images of these", cards(_card(e, row, thumbs) for row in worst)) if worst else Html()


def _nodes(e: PlacedEvaluation, thumbs: Mapping[int, str]) -> Html:
    shown = [_card(e, row, thumbs) for rows in _by_node(e).values() for row in rows]
    note = f"Up to {_EACH} of each node that is answered most, the surest first."
    return section("Images by their answer", cards(shown), note=note)


def _wrong(e: PlacedEvaluation) -> Html:
    wrong = _worst(e)
    if not wrong:
        return Html()
    rows = [
        (
            e.images.sources[row],
            "/".join(e.truth[row]),
            "/".join(e.answers[row]),
            int(e.distance[row]),
            number(float(e.scores[row])),
        )
        for row in wrong
    ]
    heads = ("image", "own label", "answer", "distance", "score")
    return section("The answers that are farthest off", table(heads, rows))

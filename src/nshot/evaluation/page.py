"""An evaluation as one page that a person would show to a colleague."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from nshot import metrics
from nshot.embeddings import Embeddings
from nshot.errors import ImageError
from nshot.evaluation.again import again
from nshot.evaluation.evaluation import BARE, Evaluation, Rival
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
    folded,
    headline,
    page,
    paragraph,
    percent,
    section,
    side_by_side,
    table,
    thumbnail,
)
from nshot.types import Limits

MISTAKES, UNSURE, SUSPECTS = 24, 12, 24  # images shown of each
PAIRS = 40  # of labels that occur together, at most
_CONFUSED = 30  # classes in the heatmap, at most: more cannot be read
_SIDE = 192


def shown(evaluation: Evaluation) -> set[int]:
    """The rows whose images the page shows."""
    suspects = [suspect.row for suspect in evaluation.suspects[:SUSPECTS]]
    return {*evaluation.mistakes(MISTAKES), *evaluation.unsure(UNSURE), *suspects}


def thumbnails(data: Iterable[Source], evaluation: Evaluation, limits: Limits) -> dict[int, str]:
    """Row -> a small image as a data URI, for the rows that the page shows; the set is listed once more."""
    found: dict[int, str] = {}
    for row, source in again(data, evaluation.images, shown(evaluation)):
        with suppress(ImageError):  # gone since it was embedded: its card says so
            found[row] = thumbnail(load(source.read(), limits, draft=2 * _SIDE, side=_SIDE).image, _SIDE)
    return found


def write(
    evaluation: Evaluation,
    run: Mapping[str, object],
    *,
    thumbs: Mapping[int, str] | None = None,
    models: Sequence[Rival] = (),
) -> str:
    """The page.

    Args:
        evaluation: what is shown.
        run: what was run, with what; the "data" and the "model" also head the page.
        thumbs: row -> data URI.
        models: the comparison of several models, the evaluated one first.
    """
    e = evaluation
    parts = [*sections(e, thumbs or {}, models), section("What was run", facts(run))]
    n, c = len(e.images), len(e.classifier.labels)
    return page(
        f"Evaluation of {run.get('model', 'a classifier')}",
        *parts,
        subtitle=", ".join(
            [f"{n:,} images", f"{c:,} labels", *([str(run["data"])] if "data" in run else [])]
        ),
    )


def sections(e: Evaluation, thumbs: Mapping[int, str], models: Sequence[Rival] = ()) -> list[Html]:
    """What the page tells of an evaluation, from the headline to the images without an answer."""
    told = [
        _models(models),
        _prompts(e),
        *(() if e.shown is not None else (_trust(e),)),  # scores of several labels promise no share
        _confusion(e),
        _images(e, thumbs),
        _suspects(e, thumbs),
        _classes(e),
        _together(e),
        _domains(e),
    ]
    return [_headline(e), *(() if _is_lone(e) else told), failures(e.images)]


def _is_lone(e: Evaluation) -> bool:
    """Whether there is nothing to choose: each answer is right, by chance as well."""
    return len(e.classifier.labels) == 1 and not e.images.multi


def _lone(e: Evaluation) -> Html:
    """What can be said of one label: how many images are answered, where others are rejected."""
    label = e.classifier.labels[0]
    note = (
        f"There is one label, {label!r}, so whatever is answered is right, and no accuracy is given. Give "
        "images of other labels too, or name other labels with --labels."
    )
    if "answered" not in e.figures:
        return section("Accuracy", paragraph(note))
    answered = Figure(
        percent(e.figures["answered"]).content, "answered", "the others are taken to show none of the labels"
    )
    return section("Accuracy", headline(answered), note=note)


def _headline(e: Evaluation) -> Html:
    if _is_lone(e):
        return _lone(e)
    f = e.figures
    low, high = e.interval
    figures = [
        Figure(
            percent(f["top_1"]).content,
            "top-1 accuracy",
            f"95 % interval {between(low, high)}",
        )
    ]
    if len(e.classifier.labels) > 5:
        figures.append(Figure(percent(f["top_5"]).content, "top-5 accuracy"))
    if "mean_average_precision" in f:
        figures.append(Figure(percent(f["mean_average_precision"]).content, "mean average precision"))
    if "mean_f1" in f:
        figures.append(Figure(percent(f["mean_f1"]).content, "mean F1", "every label weighs the same"))
    if "mean_per_class_recall" in f:
        figures.append(
            Figure(
                percent(f["mean_per_class_recall"]).content,
                "mean per-class recall",
                "every label weighs the same",
            )
        )
    if e.shown is None:
        figures.append(
            Figure(
                f"{100 * f['expected_calibration_error']:.1f} points",
                "calibration error",
                "mean gap between score and accuracy; 0 is best",
            )
        )
    if "answered" in f:
        figures.append(
            Figure(
                percent(f["answered"]).content,
                "answered",
                f"{percent(f['right_of_answered']).content} of these are right",
            )
        )
    if "set_coverage" in f:
        figures.append(
            Figure(
                percent(f["set_coverage"]).content,
                "of the sets hold the right label",
                f"labels in a set: {f['mean_set_size']:.2f} on average",
            )
        )
    known = [rival for rival in e.rivals if rival.interval is None]
    note = "; ".join(f"{rival.name} would reach {percent(rival.value).content}" for rival in known)
    return section("Accuracy", headline(*figures), note=f"{note[:1].upper()}{note[1:]}." if note else "")


def _rival_table(rivals: Iterable[Rival], first: str, reference: str) -> Html:
    rivals = list(rivals)
    ends = [end for rival in rivals for end in (rival.interval or (rival.value,))]
    span = (max(min(ends) - 0.01, 0.0), min(max(ends) + 0.01, 1.0))
    mark = next((rival.value for rival in rivals if rival.gain == 0), None)
    rows = []
    for rival in rivals:
        low, high = rival.interval or (rival.value, rival.value)
        itself = rival.gain_interval in (None, (0, 0))
        rows.append(
            (
                f"{BARE} (the label alone)" if rival.name == BARE else rival.name,
                percent(rival.value),
                Cell(charts.whisker(rival.value, low, high, span=span, mark=mark), rival.value),
                Cell("–", rival.gain) if itself else _points(rival.gain),
                Cell("–" if itself else _gap(*rival.gain_interval or (0, 0)), rival.gain),
            )
        )
    return table(
        (first, "top-1", "95 % interval", f"points above {reference}", "95 % interval of the points"), rows
    )


def _models(models: Sequence[Rival]) -> Html:
    if len(models) < 2:
        return Html()
    note = (
        "The same images through each model; differences are paired, image by image. "
        "The rest of this page is about the first model."
    )
    return section("Models side by side", _rival_table(models, "model", models[0].name), note=note)


def _prompts(e: Evaluation) -> Html:
    ways = [rival for rival in e.rivals if rival.interval is not None]
    if not ways:
        return Html()
    reference = next((rival.name for rival in ways if rival.gain == 0), "the first")
    parts: list[Html] = [_rival_table(ways, "prompt", reference)]
    if e.chosen is not None and e.chosen.gain is not None and e.chosen.gain_interval is not None:
        low, high = e.chosen.gain_interval
        verdict = "worth it" if low > 0 else "not worth it" if high < 0 else "no clear difference"
        parts.append(
            paragraph(
                f"Best on these images: {e.chosen.name!r}. Chosen on a part of the images and measured "
                f"on the rest, fold after fold, choosing gives {percent(e.chosen.value).content}: "
                f"{_points(e.chosen.gain).content} points against {reference!r} "
                f"(95 % interval {_gap(low, high)}), {verdict}."
            )
        )
    note = "Each template on the same images. A difference whose interval includes 0 may be chance."
    return section("Prompts compared", *parts, note=note)


def _trust(e: Evaluation) -> Html:
    r, risk = e.reliability, e.risk
    share = charts.Axis("score of the answer", 0, 1, share=True)
    diagram = charts.lines(
        "Reliability diagram",
        [charts.Series("answers", r.confidence.tolist(), r.accuracy.tolist())],
        share,
        charts.Axis("accuracy", 0, 1, share=True),
        diagonal=True,
        legend=False,
    )
    picked = np.unique(np.linspace(0, max(len(risk.coverage) - 1, 0), 200).astype(int))[: len(risk.coverage)]
    curve = charts.lines(
        "Answering only the surest images",
        [
            charts.Series(
                "answers", risk.coverage[picked].tolist(), (1 - risk.risk[picked]).tolist(), dots=False
            )
        ],
        charts.Axis("images answered, highest score first", 0, 1, share=True),
        charts.Axis("accuracy on these", None, 1, share=True),
        legend=False,
    )
    at = {coverage: risk.at(coverage) for coverage in (0.5, 0.8, 0.9)}
    said = "; ".join(
        f"of the {100 * c:.0f} % with the highest scores ({threshold:.2f} and more), "
        f"{percent(1 - wrong).content} are right"
        for c, (wrong, threshold) in at.items()
    )
    note = (
        "Each dot is an equal number of images. On the dashed line, scores equal the accuracy; below it the "
        "classifier is overconfident, above it underconfident."
    )
    return section(
        "Calibration and coverage", side_by_side(diagram, curve), f"{said[:1].upper()}{said[1:]}.", note=note
    )


def _confusion(e: Evaluation) -> Html:
    if e.confusion is None:
        return Html()
    labels = e.classifier.labels
    pairs = metrics.most_confused(e.confusion, 15)
    if len(labels) <= _CONFUSED:
        places = list(range(len(labels)))
        title = "Confusion"
    else:
        wrong = e.confusion.sum(axis=0) + e.confusion.sum(axis=1) - 2 * np.diag(e.confusion)
        places = sorted(np.argsort(-wrong, kind="stable")[:_CONFUSED].tolist())
        title = f"Confusion among the {_CONFUSED} labels with most mistakes"
    support = e.confusion.sum(axis=1)
    matrix = charts.heatmap(
        title,
        e.confusion[np.ix_(places, places)],
        [labels[k] for k in places],
        rows="the image's label",
        columns="the answer",
        totals=support[places],
    )
    rows = [(labels[own], labels[said], count, percent(count / support[own])) for own, said, count in pairs]
    named = table(("label", "answer", "images", "share of the label's images"), rows) if rows else Html()
    return section("Confusions", side_by_side(matrix, named))


def _images(e: Evaluation, thumbs: Mapping[int, str]) -> Html:
    wrong, unsure = e.mistakes(MISTAKES), e.unsure(UNSURE)
    if not wrong and not unsure:
        return Html()
    parts = []
    if wrong:
        parts.append(cards(_card(e, row, thumbs, "bad") for row in wrong))
    if unsure:
        parts.append(paragraph("The right answers with the lowest scores."))
        parts.append(cards(_card(e, row, thumbs, "good") for row in unsure))
    note = (
        "The wrong answers with the highest scores; the image's own label is in bold."
        if wrong
        else "No wrong answer."
    )
    return section("Images", *parts, note=note)


def _card(e: Evaluation, row: int, thumbs: Mapping[int, str], tone: str) -> Card:
    said = f"answered {e.classifier.labels[e.answers[row]]}"
    lines = [f"{said}, score {e.confidence[row]:.2f}"]
    if tone == "bad":
        lines.append(f"own label: score {e.own_scores[row]:.2f}, rank {e.place[row] + 1}")
    return Card(
        thumbs.get(row),
        " | ".join(e.labels_of(row)),
        lines if tone == "bad" else [f"score {e.confidence[row]:.2f}"],
        "bad" if tone == "bad" else "good",
        e.images.sources[row],
    )


def _suspects(e: Evaluation, thumbs: Mapping[int, str]) -> Html:
    if not e.suspects:
        return Html()
    labels = e.classifier.labels
    items = [
        Card(
            thumbs.get(s.row),
            f"{labels[s.given]}?",
            [
                f"suggested: {labels[s.suggested]}",
                f"score {s.suggested_score:.2f} against {s.given_score:.2f}",
            ],
            hint=e.images.sources[s.row],
        )
        for s in e.suspects[:SUSPECTS]
    ]
    n = len(e.suspects)
    note = (
        f"{n:,} image{'s' * (n != 1)} ({percent(n / len(e.images)).content}) that the classifier and the "
        "other images' labels would rather give another label. The first are the most doubtful: look at them "
        "before blaming the classifier. All of them are in report.json."
    )
    return section("Labels in doubt", cards(items), note=note)


def _classes(e: Evaluation) -> Html:
    labels = e.classifier.labels
    p = e.per_class
    body = [
        (
            label,
            int(p.support[k]),
            percent(p.recall[k]),
            Cell(charts.whisker(p.recall[k], *p.recall_interval[k], span=(0, 1)), float(p.recall[k])),
            percent(p.precision[k]),
            _interval(p.precision[k], p.precision_interval[k]),
            percent(p.f1[k]),
            _interval(p.f1[k], p.f1_interval[k]),
            *(() if e.average_precisions is None else (percent(e.average_precisions[k]),)),
        )
        for k, label in enumerate(labels)
    ]
    heads = (
        "label",
        "images",
        "recall",
        "recall, 95 % interval",
        "precision",
        "precision, 95 % interval",
        "F1",
        "F1, 95 % interval",
        *(() if e.average_precisions is None else ("average precision",)),
    )
    note = (
        "Recall: the share of the label's images that got this label. "
        "Precision: the share of these answers that are right."
    )
    if e.shown is not None:
        note += (
            " A label is answered by the threshold that the classifier has learnt."
            if e.learnt
            else " A label is answered by a threshold that was learnt on the other parts of these images; "
            "nshot calibrate --multi keeps thresholds in a classifier."
        )
    return section("Per label", table(heads, body), note=note)


def _together(e: Evaluation) -> Html:
    """Pairs of labels that images show both of, against how often both are answered."""
    if e.shown is None:
        return Html()
    labels, (given, said) = e.classifier.labels, e.together()
    pairs = np.argwhere(np.triu(given + said, k=1))
    if not len(pairs):
        return Html()
    count = given[pairs[:, 0], pairs[:, 1]]
    off = np.abs(said[pairs[:, 0], pairs[:, 1]] - count)
    rows = [
        (labels[i], labels[j], int(given[i, j]), int(said[i, j]))
        for i, j in pairs[np.lexsort((-off, -count))][:PAIRS].tolist()
    ]
    note = "The pairs that most images show; a large difference says that one label draws the other along."
    return section(
        "Labels that occur together",
        table(("label", "and", "images that show both", "images answered with both"), rows),
        note=note,
    )


def _domains(e: Evaluation) -> Html:
    if not e.domains:
        return Html()
    rows = [
        (
            domain.name,
            domain.images,
            percent(domain.value),
            Cell(
                charts.whisker(domain.value, *domain.interval, span=(0, 1), mark=e.figures["top_1"]),
                domain.value,
            ),
        )
        for domain in e.domains
    ]
    return section("Per domain", table(("domain", "images", "top-1", "95 % interval"), rows))


def failures(images: Embeddings) -> Html:
    """The images that could not be read, folded away; nothing where all could."""
    failed = list(images.failures.values())
    if not failed:
        return Html()
    rows = [(failure.source, failure.type, failure.message) for failure in failed[:1000]]
    note = f"{len(failed):,} could not be read. They are in none of the figures."
    return section(
        "Images without an answer", folded("Show them", table(("image", "error", "message"), rows)), note=note
    )


def _interval(value: float, ends: Sequence[float]) -> Cell:
    return Cell("–" if np.isnan(value) else between(ends[0], ends[1]), float(value))


def _points(gain: float | None) -> Cell:
    return Cell("–") if gain is None else Cell(f"{100 * gain:+.1f}".replace("-", "−"), gain)


def _gap(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}".replace("-", "−")

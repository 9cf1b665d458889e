"""An evaluation as files: every number as JSON, every image as a row of Parquet or CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nshot import metrics
from nshot.atomic import replacing, write_bytes
from nshot.classifier.cascade import CascadeClassifier
from nshot.evaluation import placed
from nshot.evaluation.evaluation import Evaluation, Rival
from nshot.evaluation.placed import PlacedEvaluation
from nshot.extras import pyarrow

COLUMNS = ("source", "own", "label", "right", "score", "cosine", "margin", "own_score", "own_place", "domain")
_KINDS = ("str", "str", "str", "bool", "f8", "f8", "f8", "f8", "i4", "str")
_COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_CHUNK = 4096
_GROUP = 2**16  # rows of a Parquet file held at once


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Every number, ready for JSON; what is not a number is null.

    ``confusion`` holds [own label, answered label, images] of each pair that occurs, labels by their place.
    """
    e, labels = evaluation, evaluation.classifier.labels
    content: dict[str, Any] = {
        "images": len(e.images),
        "failed": len(e.images.failures),
        "labels": list(labels),
        "figures": e.figures | {"top_1_interval": e.interval},
        "against": [_rival(rival) for rival in e.rivals],
        "template_choice": None if e.chosen is None else _rival(e.chosen),
        "domains": [asdict(domain) | {"interval": domain.interval} for domain in e.domains],
        "reliability": {
            "confidence": e.reliability.confidence,
            "accuracy": e.reliability.accuracy,
            "count": e.reliability.count,
        },
        "risk_coverage": [
            dict(zip(("coverage", "risk", "threshold"), (at, *e.risk.at(at)), strict=True))
            for at in _COVERAGES
        ],
        "label_errors": [
            {
                "source": e.images.sources[s.row],
                "given": labels[s.given],
                "suggested": labels[s.suggested],
                "given_score": s.given_score,
                "suggested_score": s.suggested_score,
            }
            for s in e.suspects
        ],
    }
    named = asdict(e.per_class)
    content["per_class"] = [
        {"label": label} | {name: values[k] for name, values in named.items()}
        for k, label in enumerate(labels)
    ]
    if e.confusion is not None:
        content["most_confused"] = [
            {"own": labels[own], "answered": labels[said], "images": count}
            for own, said, count in metrics.most_confused(e.confusion, 50)
        ]
        own, said = np.nonzero(e.confusion)
        content["confusion"] = np.stack([own, said, e.confusion[own, said]], axis=1)
    if e.average_precisions is not None:
        content["average_precision"] = dict(zip(labels, e.average_precisions, strict=True))
        given, said = e.together()
        content["together"] = [
            {"labels": [labels[i], labels[j]], "images": given[i, j], "answered": said[i, j]}
            for i, j in np.argwhere(np.triu(given + said, k=1))
        ]
    plain: dict[str, Any] = _plain(content)
    return plain


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, an entry a line, whole or not at all."""
    entries = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in _plain(content).items())
    _write(path, "{\n" + ",\n".join(entries) + "\n}\n")


def write_page(path: Path, html: str) -> None:
    """Write a page whole or not at all."""
    _write(path, html)


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """A row per image, the failed ones last, with an empty answer; .parquet or .csv by the name.

    Columns: source, own (several labels are joined by "|"), label (the answer), right, score, cosine, margin
    (the best cosine minus the second best), own_score, own_place (1 is the best), domain; of a cascade stage,
    the model that answered.
    """
    staged = bool(evaluation.classifier.stages)
    columns, kinds = [*COLUMNS, *["stage"] * staged], [*_KINDS, *["str"] * staged]
    _write_rows(path, columns, kinds, rows(evaluation))


def write_facet_predictions(path: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """The same for several facets: a row per image, with the columns of each facet.

    Columns: source, and per facet NAME (the answer), NAME_own, NAME_right, NAME_score, NAME_cosine,
    NAME_margin, NAME_own_score, NAME_own_place; all empty where the image has no label of that facet.
    """
    told = {
        name: dict(zip(e.images.positions.tolist(), rows(e), strict=False)) for name, e in evaluations.items()
    }
    shown = [COLUMNS.index(column) for column in ("label", "own", *COLUMNS[3:-1])]
    names = [
        name if column == "label" else f"{name}_{column}"
        for name in evaluations
        for column in ("label", "own", *COLUMNS[3:-1])
    ]
    kinds = [_KINDS[place] for _ in evaluations for place in shown]

    def together() -> Iterator[Sequence[Any]]:
        empty = (None,) * len(COLUMNS)
        for position in sorted({position for own in told.values() for position in own}):
            own = [each.get(position, empty) for each in told.values()]
            source = next(each[0] for each in own if each[0] is not None)
            yield [source, *(each[place] for each in own for place in shown)]
        failed = {source: None for e in evaluations.values() for source in _failed(e)}
        for source in failed:
            yield [source, *[None] * len(names)]

    _write_rows(path, ["source", *names], ["str", *kinds], together())


def _failed(evaluation: Evaluation) -> list[str]:
    return [failure.source for failure in evaluation.images.failures.values()]


def write_placed(path: Path, evaluation: PlacedEvaluation) -> None:
    """The same of a tree's answers: see ``nshot.evaluation.placed.COLUMNS``."""
    kinds = ("str", "str", "str", "str", "i4", "bool", "f8", "i4", "str")
    _write_rows(path, placed.COLUMNS, kinds, evaluation.rows())


def _write_rows(
    path: Path, columns: Sequence[str], kinds: Sequence[str], rows: Iterator[Sequence[Any]]
) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            pa = pyarrow()
            types = {"str": pa.string(), "bool": pa.bool_(), "f8": pa.float64(), "i4": pa.int32()}
            schema = pa.schema([(name, types[kind]) for name, kind in zip(columns, kinds, strict=True)])
            with pa.parquet.ParquetWriter(temporary, schema) as writer:
                while some := list(islice(rows, _GROUP)):
                    held = pa.table(list(map(list, zip(*some, strict=True))), schema=schema)
                    writer.write_table(held)
        else:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                table = csv.writer(file)
                table.writerow(columns)
                table.writerows(rows)


def rows(evaluation: Evaluation) -> Iterator[Sequence[Any]]:
    """The rows of ``write_predictions``."""
    e = evaluation
    labels, confidence = e.classifier.labels, e.confidence
    for start in range(0, len(e.images), _CHUNK):
        part = slice(start, start + _CHUNK)
        sources = e.images.sources[part]
        domains = None if e.images.domains is None else e.images.domains[part]
        vectors = e.images.vectors[part]
        cosines = e.classifier.cosines(vectors)
        stages = e.classifier.answered_by(vectors) if isinstance(e.classifier, CascadeClassifier) else []
        best = np.sort(cosines, axis=1)[:, -2:][:, ::-1]
        for i in range(len(cosines)):
            row = start + i
            own, said = int(e.own[row]), int(e.answers[row])
            yield (
                sources[i],
                "|".join(e.labels_of(row)),
                labels[said],
                bool(e.place[row] == 0) if own >= 0 else None,
                float(confidence[row]),
                float(cosines[i, said]),
                float(best[i, 0] - best[i, 1]) if best.shape[1] > 1 else None,
                float(e.own_scores[row]) if own >= 0 else None,
                int(e.place[row]) + 1 if own >= 0 else None,
                None if domains is None else domains[i],
                *stages[i : i + 1],
            )
    for failure in e.images.failures.values():
        yield (failure.source, *[None] * (len(COLUMNS) - 1 + bool(e.classifier.stages)))


def _rival(rival: Rival) -> dict[str, Any]:
    return {
        "name": rival.name,
        "top_1": rival.value,
        "top_1_interval": rival.interval,
        "gain": rival.gain,
        "gain_interval": rival.gain_interval,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogateescape"))

"""The answers of one question: a list that shows itself as text, as a table of a notebook, and as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from nshot.errors import MissingExtra
from nshot.extras import pyarrow
from nshot.types import Decided, Failure, Prediction

_SHOWN = 20  # rows in a notebook or a repr
_SIDE = 64  # pixels of a thumbnail


class Predictions(Sequence[Prediction | Failure]):
    """One answer per image, in order; an image that could not be answered is a ``Failure`` in its place.

    A failure has ``label`` None and ``score`` nan, so a loop over the answers survives it.
    """

    def __init__(self, answers: Iterable[Prediction | Failure]) -> None:
        self._answers = list(answers)

    @property
    def failures(self) -> list[Failure]:
        """The images that could not be answered."""
        return [answer for answer in self._answers if isinstance(answer, Failure)]

    def to_columns(self) -> dict[str, list[Any]]:
        """Columns of equal length: source, label, score, cosine, margin, error; with a decision also answer
        and labels, a list; of a cascade also stage.

        A failed image has None for all but its source and its error.
        """
        answers = self._answers
        failed = [isinstance(answer, Failure) for answer in answers]

        def column(name: str) -> list[Any]:
            return [None if bad else getattr(a, name) for a, bad in zip(answers, failed, strict=True)]

        columns: dict[str, list[Any]] = {"source": [answer.source for answer in answers]}
        columns |= {name: column(name) for name in ("label", "score", "cosine", "margin")}
        if any(isinstance(answer, Decided) for answer in answers):
            columns["answer"] = [answer.answer if isinstance(answer, Decided) else None for answer in answers]
            columns["labels"] = [
                list(answer.labels) if isinstance(answer, Decided) else None for answer in answers
            ]
        if any(stages := column("stage")):
            columns["stage"] = stages
        columns["error"] = [answer.message if isinstance(answer, Failure) else None for answer in answers]
        return columns

    def to_pandas(self) -> Any:
        """A DataFrame, one row per image; see ``to_columns``.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("to_pandas() needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.to_columns())

    def to_arrow(self) -> Any:
        """A pyarrow table, one row per image; see ``to_columns``.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        return pyarrow().table(self.to_columns())

    @overload
    def __getitem__(self, index: int) -> Prediction | Failure: ...

    @overload
    def __getitem__(self, index: slice) -> Predictions: ...

    def __getitem__(self, index: int | slice) -> Prediction | Failure | Predictions:
        found = self._answers[index]
        return Predictions(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Prediction | Failure]:
        return iter(self._answers)

    def __eq__(self, other: object) -> bool:
        return self._answers == (other._answers if isinstance(other, Predictions) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        failed = len(self.failures)
        head = f"<Predictions: {len(self):,} images" + (f", {failed:,} failed>" if failed else ">")
        lines = [f"  {answer.source}  {_told(answer)}" for answer in self._answers[:_SHOWN]]
        if len(self) > _SHOWN:
            lines.append(f"  ... and {len(self) - _SHOWN:,} more")
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        """A table with a thumbnail where the image is a file on this machine, its label and its score."""
        from nshot.pages.engine import part

        rows = []
        for answer in self._answers[:_SHOWN]:
            label, score = _label(answer), written(answer.score)
            if isinstance(answer, Failure):
                label, score = f"failed: {answer.message}", ""
            rows.append((_thumbnail(answer.source), answer.source, label, score))
        return part("predictions", rows, f"{len(self) - _SHOWN:,}" if len(self) > _SHOWN else "")


def written(score: float) -> str:
    """A score to three decimals; a small one, as a sigmoid model's often are, to two significant digits."""
    return f"{score:.3f}" if score == 0 or score >= 0.01 else f"{score:.2g}"


def _label(answer: Prediction | Failure) -> str:
    if isinstance(answer, Decided) and answer.label is None:
        between = ", " if answer.answer == "several" else " or "
        return between.join(answer.labels) or {"none": "none of these"}.get(answer.answer, answer.answer)
    return answer.label or ""


def _told(answer: Prediction | Failure) -> str:
    if isinstance(answer, Failure):
        return f"failed: {answer.message}"
    return f"{_label(answer)}  {written(answer.score)}"


def _thumbnail(source: str) -> str | None:
    """A small picture of a local file as a data URI; None where it cannot be read."""
    from pathlib import Path

    from nshot.errors import ImageError
    from nshot.images.prepare import load
    from nshot.images.sources import Source
    from nshot.pages.report import thumbnail

    if not Path(source).is_file():
        return None
    try:
        return thumbnail(load(Source.file(source).read(), draft=2 * _SIDE, side=_SIDE).image, _SIDE)
    except ImageError:
        return None

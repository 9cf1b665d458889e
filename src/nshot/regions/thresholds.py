"""A threshold per label, learnt from images whose boxes are known, and what its silence is worth."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nshot.bounded import parsed, read_bytes
from nshot.errors import NONSENSE, RequestError
from nshot.types import Failure, Located


@dataclass(frozen=True, slots=True)
class Threshold:
    """What was learnt of one label.

    Attributes:
        score: the least score that a box is told with.
        missed: of the images that show the label, the share in which no box of it reached that score: how
            often "absent" is wrong.
    """

    score: float
    missed: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A threshold for each of some labels."""

    of: Mapping[str, Threshold]

    def least(self, otherwise: float) -> float:
        """The least of them, and of what holds for other labels."""
        return min([otherwise, *(each.score for each in self.of.values())])

    def decided(
        self, located: Iterable[Located | Failure], labels: Sequence[str]
    ) -> Iterator[Located | Failure]:
        """The answers with the boxes that reach their labels' thresholds, and what is absent.

        A label without a threshold of its own keeps its boxes, and is never called absent.
        """
        for each in located:
            if isinstance(each, Failure):
                yield each
                continue
            boxes = tuple(
                box for box in each.boxes if box.label not in self.of or box.score >= self.of[box.label].score
            )
            there = {box.label for box in boxes}
            absent = {
                label: self.of[label].missed for label in labels if label in self.of and label not in there
            }
            yield replace(each, boxes=boxes, absent=absent)

    def to_json(self) -> str:
        """The file's content."""
        told = {label: {"score": each.score, "missed": each.missed} for label, each in self.of.items()}
        return json.dumps({"thresholds": told}, ensure_ascii=False, indent=1) + "\n"


def read_thresholds(path: str | os.PathLike[str]) -> Thresholds:
    """What ``nshot evaluate --boxes`` wrote.

    Raises:
        RequestError: there is no such file, or it does not hold thresholds.
    """
    try:
        told = parsed(read_bytes(path, 2**24))["thresholds"]
        return Thresholds(
            {
                str(label): Threshold(float(each["score"]), float(each["missed"]))
                for label, each in told.items()
            }
        )
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    except NONSENSE as error:
        raise RequestError(
            f'{path} does not hold thresholds, such as {{"thresholds": {{"cat": {{"score": 0.3, '
            '"missed": 0.05}}}}: nshot evaluate --boxes writes them'
        ) from error

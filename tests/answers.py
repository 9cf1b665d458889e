"""A made-up run's answers, the same in every process."""

from __future__ import annotations

from nshot.output.sinks import Record
from nshot.types import Failure, LabelScore, Prediction


def answer(n: int, source: str | None = None) -> Record:
    """The n-th answer of a made-up run: some failures, and names that are hard to keep whole."""
    name = source or ('a\nb, "c" ' if n % 7 == 3 else "猫 ") + f"{n}.jpg"
    if n % 5 == 4:
        return Failure(name, "UndecodableImage", f'{name}: not a\nimage, "really"')
    labels = [
        LabelScore(label, 0.9 / (n + k + 1), 0.3 - k / 10) for k, label in enumerate(("cat", "hot, dog"))
    ]
    return Prediction(name, tuple(labels), 0.1)

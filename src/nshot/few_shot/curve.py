"""Accuracy against the number of examples per label: what would a few more buy?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError
from nshot.few_shot.choose import choose_probe
from nshot.few_shot.fitting import fit
from nshot.few_shot.heads import Shown, Targets
from nshot.few_shot.logistic import plain_probe
from nshot.unit import normalize

ALL = "all"
ZERO_SHOT = "zero-shot"
PROBE = "linear probe"  # as scikit-learn's LogisticRegression has it by default, with C = 1
TUNED = "linear probe, tuned"  # with C by cross-validation
NSHOT = "nshot"
FINE_TUNED = "fine-tuned"  # the text tower, and the labels it then writes
_FEWEST = 8  # examples that can be fine-tuned on
Shots = int | str
FineTune: TypeAlias = Callable[[NDArray[np.float32], Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one number of examples.

    Attributes:
        method: ZERO_SHOT, PROBE, TUNED, NSHOT, FINE_TUNED, or the name that other features were given.
        shots: examples per label, or "all".
        examples: how many that were in all, in the mean over the draws.
        accuracies: of each draw, in [0, 1], on images that no method was shown.
        chosen: the method or the strength used in each draw; empty for zero-shot.
        seconds: processor time of each draw, of NSHOT and FINE_TUNED, without encoding the images.
    """

    method: str
    shots: Shots
    examples: float
    accuracies: tuple[float, ...]
    chosen: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean accuracy over the draws."""
        return float(np.mean(self.accuracies))

    @property
    def low(self) -> float:
        """The worst draw."""
        return min(self.accuracies)

    @property
    def high(self) -> float:
        """The best draw."""
        return max(self.accuracies)


def curve(
    vectors: ArrayLike,
    labels_of: Sequence[str],
    prompts: Classifier,
    *,
    shots: Sequence[Shots] = (0, 1, 2, 4, 8, 16, ALL),
    draws: int = 5,
    held_out: float = 1 / 3,
    others: Mapping[str, ArrayLike] | None = None,
    fine_tune: FineTune | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """Zero-shot, a plain linear probe, nshot's choice and probes on other features, on the same draws.

    A draw holds out a share of every label's images (none of an only one), and takes the examples from
    the rest; a draw's larger examples contain its smaller ones. A label with fewer images gives all that
    it has.

    Args:
        vectors: float[n, d].
        labels_of: the label of each; labels of ``prompts`` without an image stay among the answers.
        prompts: a zero-shot classifier that knows every label.
        shots: examples per label, 0 for none and "all" for every image that is not held out.
        draws: how many.
        held_out: share of the images to measure on, in (0, 1).
        others: features of the same images by other models, [n, any], for a probe each.
        fine_tune: trains on vectors and their labels, and gives the vectors of the labels of ``prompts``,
            float32[k, d]: ``nshot.train.texts.TextTuner``. None: it is not measured.
        seed: of the draws.
        progress: called with (done, total) after each number of shots of each draw.

    Returns:
        A point for every method and number of shots, zero-shot's with 0 shots.

    Raises:
        LabelError: a label without a prompt.
        RequestError: shots, draws or a share that cannot be, or no label with two images.
    """
    wanted = _checked(shots, draws, held_out)
    rows = normalize(vectors)
    unknown = sorted(set(labels_of) - set(prompts.labels))
    if unknown:
        raise LabelError(f"no prompt for {', '.join(map(repr, unknown[:5]))}")
    place = {label: i for i, label in enumerate(prompts.labels)}
    targets = np.array([place[label] for label in labels_of], dtype=np.intp)
    features = {name: normalize(feature).astype(np.float64) for name, feature in (others or {}).items()}
    if wrong := [name for name, feature in features.items() if len(feature) != len(rows)]:
        raise RequestError(f"{wrong[0]} has another number of rows than there are images")
    found: dict[tuple[str, Shots], list[tuple[int, _Run]]] = {}
    total = draws * len(wanted)
    for draw in range(draws):
        for step, (count, shown, rest) in enumerate(_draw(targets, wanted, held_out, seed + draw)):
            for run in _compare(
                rows, labels_of, targets, prompts, features, fine_tune, shown, rest, seed + draw
            ):
                key = (run.method, 0 if run.method == ZERO_SHOT else count)
                if run.method != ZERO_SHOT or step == 0:  # it needs no examples: once a draw is enough
                    found.setdefault(key, []).append((len(shown), run))
            if progress:
                progress(draw * len(wanted) + step + 1, total)
    points = [
        Point(
            method,
            count,
            float(np.mean([n for n, _ in runs])) if count else 0.0,
            tuple(run.right for _, run in runs),
            tuple(run.chosen for _, run in runs if run.chosen),
            tuple(run.seconds for _, run in runs if run.seconds is not None),
        )
        for (method, count), runs in found.items()
    ]
    methods = [ZERO_SHOT, PROBE, TUNED, *features, NSHOT, FINE_TUNED]
    return sorted(points, key=lambda point: (methods.index(point.method), [0, *wanted].index(point.shots)))


class _Run(NamedTuple):
    """A method on one draw: its share right, what was chosen, and the processor time."""

    method: str
    right: float
    chosen: str = ""
    seconds: float | None = None


def _compare(
    rows: NDArray[np.float32],
    labels_of: Sequence[str],
    targets: Targets,
    prompts: Classifier,
    features: Mapping[str, NDArray[np.float64]],
    fine_tune: FineTune | None,
    shown: Targets,
    rest: Targets,
    seed: int,
) -> Iterator[_Run]:
    """Every method on one draw."""

    def share(answers: NDArray[np.intp]) -> float:
        return float(np.mean(answers == targets[rest]))

    yield _Run(ZERO_SHOT, share(prompts.logits(rows[rest]).argmax(axis=1)))
    if not len(shown):
        return
    present, numbers = np.unique(targets[shown], return_inverse=True)

    def tuned(feature: NDArray[np.float64]) -> tuple[float, float, float]:
        """Accuracy with C = 1, with the C that cross-validation finds, and that C."""
        examples = Shown.of(feature[shown], numbers)
        strength = choose_probe(examples, len(present), seed=seed)
        heads = plain_probe(examples, len(present), strengths=[1.0, strength])
        plain, best = (share(present[head.logits(feature[rest]).argmax(axis=1)]) for head in heads)
        return plain, best, strength

    own = [labels_of[i] for i in shown]
    begun = time.process_time()
    fitted = fit(rows[shown], own, prompts, seed=seed)
    seconds = time.process_time() - begun
    plain, best, strength = tuned(rows.astype(np.float64))
    yield _Run(PROBE, plain, "C=1")
    yield _Run(TUNED, best, f"C={strength:g}")
    for name, feature in features.items():
        _, right, strength = tuned(feature)
        yield _Run(name, right, f"C={strength:g}")
    answers = fitted.classifier.logits(rows[rest]).argmax(axis=1)
    yield _Run(NSHOT, share(answers), str(fitted.candidate), seconds)
    if fine_tune is not None and len(shown) >= _FEWEST:
        begun = time.process_time()
        matrix = fine_tune(rows[shown], own)
        seconds = time.process_time() - begun
        yield _Run(FINE_TUNED, share((rows[rest] @ matrix.T).argmax(axis=1)), "text tower", seconds)


def _draw(
    targets: Targets, shots: Sequence[Shots], held_out: float, seed: int
) -> Iterator[tuple[Shots, Targets, Targets]]:
    """(shots, rows to show, rows to measure on), once for every number of shots."""
    generator = np.random.default_rng(seed)
    rest: list[int] = []
    pools: list[list[int]] = []
    for label in np.unique(targets):
        rows = generator.permutation(np.flatnonzero(targets == label)).tolist()
        kept = min(max(1, round(held_out * len(rows))), len(rows) - 1)  # an only image is shown
        rest += rows[:kept]
        pools.append(rows[kept:])
    if not rest:
        raise RequestError("nothing to measure on: some label needs a second image")
    for count in shots:
        shown = [row for pool in pools for row in (pool if count == ALL else pool[: int(count)])]
        yield count, np.array(shown, dtype=np.intp), np.array(rest, dtype=np.intp)


def _checked(shots: Sequence[Shots], draws: int, held_out: float) -> list[Shots]:
    wanted = [count for count in dict.fromkeys(shots) if count != 0]
    if not all(count == ALL or (isinstance(count, int) and count > 0) for count in wanted):
        raise RequestError(f"shots are whole numbers or {ALL!r}, not {list(shots)}")
    if draws < 1 or not 0 < held_out < 1:
        raise RequestError("one draw at least is needed, and a held-out share between 0 and 1")
    return wanted or [1]

"""How classifiers fare on other images: the half of a set that they have not learnt from, other sets, and the
same images corrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.folds import fold_numbers
from nshot.embeddings import Embeddings
from nshot.errors import ImageError, RequestError
from nshot.evaluation.again import again
from nshot.evaluation.corruptions import STRENGTHS, as_seen, corrupt
from nshot.evaluation.robustness import Answers, Condition, condition, match
from nshot.few_shot import fit
from nshot.few_shot.choose import choose_probe
from nshot.few_shot.heads import Shown
from nshot.few_shot.logistic import plain_probe
from nshot.images.prepare import load
from nshot.images.sources import Source
from nshot.types import Embedded, Failure
from nshot.unit import normalize

if TYPE_CHECKING:
    from PIL.Image import Image

    from nshot.embedder import Embedder
    from nshot.evaluation.supervised import Supervised
    from nshot.few_shot.heads import Head

ZERO_SHOT = "CLIP, zero-shot"
FEW_SHOT = "CLIP, few-shot"

Watch = Callable[[Iterable[Embedded | Failure]], Iterable[Embedded | Failure]]


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """What was measured.

    Attributes:
        conditions: the base set first, then the other sets, then each corruption at each strength.
        reference: the classifier that effective robustness is counted from.
        few_shot: how the few-shot classifier came about, in words.
        left_out: another set's name -> how many of its images have none of the labels.
        failures: images that could not be read, of all sets.
    """

    conditions: tuple[Condition, ...]
    reference: str
    few_shot: str
    left_out: Mapping[str, int]
    failures: tuple[Failure, ...]


def measure(
    model: Embedder,
    data: Iterable[Source],
    examples: Embeddings,
    zero: Classifier,
    *,
    few: Classifier | None = None,
    supervised: Supervised | None = None,
    name: str = "base",
    others: Mapping[str, Iterable[Source]] | None = None,
    families: Sequence[str] = (),
    most: int = 200,
    seed: int = 0,
    watch: Watch = iter,
) -> Robustness:
    """Measure zero-shot, few-shot and perhaps a supervised network under each condition.

    Half of the examples is what few-shot and the supervised network's probe learn from; the other half is
    the base that all are measured on. Memory does not grow with the number of images or their size.

    Args:
        model: what embeds.
        data: the set that the examples come from, listed once more for the images themselves.
        examples: its embeddings, one label each.
        zero: a zero-shot classifier of all of its labels.
        few: the few-shot classifier; by default fitted on one half.
        supervised: a supervised network.
        name: of the base set, in the answer.
        others: name -> labelled images of another kind, with some of the same labels.
        families: corruptions; see ``nshot.evaluation.corruptions``.
        most: images that are corrupted, at most.
        seed: of the halves and the corruptions.
        watch: wraps each stream of records, to show progress.

    Raises:
        RequestError: too few images, a label without a prompt, or classifiers of other labels.
    """
    labels = zero.labels
    if missing := sorted(set(examples.label) - set(labels)):
        raise RequestError(f"no prompt for {', '.join(missing)}: zero-shot needs one of every label")
    place = {label: i for i, label in enumerate(labels)}
    targets = np.array([place[label] for label in examples.label], dtype=np.intp)
    second = fold_numbers(targets, 2, np.random.default_rng(seed)) == 1
    shown, measured = np.flatnonzero(second), np.flatnonzero(~second)
    if not len(shown):
        raise RequestError("two images at least are needed: one to learn from, one to measure on")
    told = "as given"
    if few is None:
        taught = [examples.label[i] for i in shown.tolist()]
        fitted = fit(examples.vectors[shown], taught, zero, seed=seed)
        few, told = fitted.classifier, f"{fitted.candidate}, fitted on {len(shown)} images"
    originals = _Originals(data, examples, model)
    probe = None
    if supervised is not None:
        rows = normalize(supervised.features(originals.images(shown.tolist()))).astype(np.float64)
        learnt = Shown.of(rows, targets[shown])
        strength = choose_probe(learnt, len(labels), seed=seed)
        [probe] = plain_probe(learnt, len(labels), strengths=[strength])
    asked = _Asked({ZERO_SHOT: zero, FEW_SHOT: few.reordered(labels)}, supervised, probe)

    base = asked.of(examples.vectors[measured], originals.images(measured.tolist()), targets[measured])
    conditions = [condition(name, "base", labels, base, base)]
    failures = list(examples.failures.values())
    left_out: dict[str, int] = {}
    for other, sources in (others or {}).items():
        found, left_out[other], failed = _other_set(other, sources, labels, model, asked, watch)
        failures += failed
        conditions.append(condition(other, "domain", labels, base, found))
    if families:
        chosen = sorted(np.random.default_rng(seed).permutation(measured)[:most].tolist())
        conditions += _made_worse(chosen, targets, labels, families, originals, asked, model, seed, watch)
    return Robustness(tuple(conditions), list(base.logits)[-1], told, left_out, tuple(failures))


@dataclass(frozen=True, slots=True, eq=False)
class _Originals:
    """The images behind embeddings, decoded again where they are needed."""

    data: Iterable[Source]
    examples: Embeddings
    model: Embedder

    def images(self, rows: Sequence[int]) -> Iterator[Image]:
        """Those of some rows, which grow.

        Raises:
            ImageError, RequestError: one of them is gone since it was embedded.
        """
        found = again(self.data, self.examples, rows)
        for row in rows:
            at, source = next(found, (None, None))
            if source is None or at != row:
                raise RequestError(
                    f"{self.examples.sources[row]} is gone since it was embedded: run it again"
                )
            yield load(source.read(), self.model.limits).image


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The classifiers, over the same labels in the same order."""

    clip: Mapping[str, Classifier]
    network: Supervised | None
    probe: Head | None

    def of(self, vectors: NDArray[Any], images: Iterable[Image], targets: NDArray[np.intp]) -> Answers:
        """Every classifier's logits; the images are decoded only for a supervised network."""
        logits: dict[str, NDArray[Any]] = {name: each.logits(vectors) for name, each in self.clip.items()}
        if self.network is not None and self.probe is not None:
            features = normalize(self.network.features(images)).astype(np.float64)
            logits[f"{self.network.name}, probe"] = self.probe.logits(features)
        return Answers(logits, targets)


def _other_set(
    name: str, sources: Iterable[Source], labels: Sequence[str], model: Embedder, asked: _Asked, watch: Watch
) -> tuple[Answers, int, list[Failure]]:
    single = [source for source in sources if source.labels is not None and len(source.labels) == 1]
    named = [source.labels[0] for source in single if source.labels]
    places = match(labels, sorted(set(named)))
    kept = [source for source, own in zip(single, named, strict=True) if own in places]
    if not kept:
        raise RequestError(f"{name} holds none of the labels, such as {labels[0]!r}")
    found = model.collect(watch(model.embed_images(kept)))
    if not len(found):
        raise RequestError(f"none of the images of {name} could be read")
    targets = np.array([places[label] for label in found.label], dtype=np.intp)
    answers = asked.of(found.vectors, _Originals(kept, found, model).images(range(len(found))), targets)
    return answers, len(single) - len(kept), list(found.failures.values())


def _made_worse(
    rows: list[int],
    targets: NDArray[np.intp],
    labels: Sequence[str],
    families: Sequence[str],
    originals: _Originals,
    asked: _Asked,
    model: Embedder,
    seed: int,
    watch: Watch,
) -> Iterator[Condition]:
    """One image after the other in all its states, so that only one original is in memory at a time."""
    states = [(family, strength) for family in families for strength in STRENGTHS]
    size = model.preprocessor.size
    kept: list[int] = []
    small: list[Image] = []

    def worse() -> Iterator[Image]:
        for row, source in again(originals.data, originals.examples, rows):
            try:
                image = as_seen(load(source.read(), model.limits).image, size)
            except ImageError:  # gone since it was embedded
                continue
            kept.append(row)
            if asked.network is not None:
                small.append(image)
            yield image
            for family, strength in states:
                yield corrupt(image, family, strength, size=size, seed=seed + row)

    found = model.collect(watch(model.embed_images(worse())))
    if not kept:
        raise RequestError(
            "none of the images can be read again, to be corrupted: give the images, or --corruptions none"
        )
    vectors = found.vectors.reshape(len(kept), 1 + len(states), -1)
    of = targets[kept]
    plain = asked.of(vectors[:, 0], small, of)
    for number, (family, strength) in enumerate(states, start=1):
        shown = (
            corrupt(image, family, strength, size=size, seed=seed + row)
            for image, row in zip(small, kept, strict=True)
        )
        answers = asked.of(vectors[:, number], shown, of)
        yield condition(family, "corruption", labels, plain, answers, strength=strength)

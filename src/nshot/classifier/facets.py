"""Several independent questions over one embedding: a classifier per facet, saved together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nshot.classifier import file
from nshot.classifier.calibrating import calibrate
from nshot.classifier.cascade import CascadeClassifier, check_one
from nshot.classifier.classifier import Classifier, in_chunks, records_of
from nshot.classifier.several import several_labels, several_zero_shot
from nshot.classifier.tree import TreeClassifier
from nshot.classifier.zero_shot import TextEmbedder, zero_shot
from nshot.decision import EVERYDAY, Decision, Rejection, default_rejection
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.labels.facets import OFF, Facet, NoneRule, parse_facets
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.types import Embedded, Faceted, Failure, Recipe


class Facets(Mapping[str, Classifier]):
    """Classifiers by the name of their question, all over the vectors of one model.

    Each has its own labels, templates, activation, decision and calibration, and answers exactly as it does
    alone. A mapping: ``facets["time of day"]`` is a ``Classifier``.

    Args:
        classifiers: by name, at least one.

    Raises:
        LabelError: none at all.
        RequestError: they belong to different models.
    """

    def __init__(self, classifiers: Mapping[str, Classifier]) -> None:
        if not classifiers:
            raise LabelError("there must be at least one facet")
        for each in classifiers.values():
            check_one(each, "several questions are asked of")
        self._classifiers = dict(classifiers)
        spaces = {each.space for each in self._classifiers.values() if each.space is not None}
        if len(spaces) > 1 or len({each.dimension for each in self._classifiers.values()}) > 1:
            raise RequestError(f"the facets {', '.join(map(repr, self))} belong to different models")

    @classmethod
    def zero_shot(
        cls,
        embedder: TextEmbedder,
        facets: Mapping[str, Facet] | Mapping[str, Labels],
        templates: Iterable[str] = (DEFAULT_TEMPLATE,),
    ) -> Facets:
        """A zero-shot classifier per facet.

        Args:
            embedder: a loaded model.
            facets: ``{name: labels}``, or what ``nshot.labels.facets.read_facets`` read.
            templates: those of facets that have none of their own.

        Raises:
            LabelError: a facet that is no question; the facet is named.
            TemplateError: a template without a place for the label.
        """
        usual = tuple(templates)
        named = {
            name: each if isinstance(each, Facet) else parse_facets({name: each})[name]
            for name, each in facets.items()
        }
        made = {}
        for name, facet in named.items():
            try:
                made[name] = _asked(embedder, facet, facet.templates or usual)
            except (LabelError, RequestError) as error:
                raise type(error)(f"facet {name!r}: {error}") from error
        return cls(made)

    def predict(
        self, images: Embeddings | ArrayLike | Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> list[Faceted | Failure]:
        """Every facet's answer for each image; see ``Classifier.predict``.

        Args:
            images: what a classifier's ``predict`` takes.
            top_k: how many labels to tell of each facet, at most.

        Raises:
            RequestError: not embeddings, or of another model, or ``top_k`` under 1.
        """
        if isinstance(images, Embeddings):
            self.check_space(images.recipe, images.model)
        return list(self.stream(records_of(images), top_k=top_k))

    def stream(
        self, embedded: Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Iterator[Faceted | Failure]:
        """The same as ``predict`` for a stream: answers come in input order, as vectors do."""
        for items in in_chunks(embedded):
            vectors = [item.vector for item in items if isinstance(item, Embedded)]
            wide = np.stack(vectors).astype(np.float64) if vectors else np.empty((0, 0))
            answers = [
                list(each.answer(items, top_k, each.compare(wide) if vectors else None))
                for each in self._classifiers.values()
            ]
            for item, *own in zip(items, *answers, strict=True):
                if isinstance(item, Failure):
                    yield item
                    continue
                facets = {
                    name: answer
                    for name, answer in zip(self._classifiers, own, strict=True)
                    if not isinstance(answer, Failure)
                }
                yield Faceted(item.source, facets, notes=item.notes, beside=item.beside)

    def check_space(self, recipe: Recipe | None, model: str | None, *, name: str = "these facets") -> None:
        """Refuse vectors of another model; see ``Classifier.check_space``."""
        for classifier in self._classifiers.values():
            classifier.check_space(recipe, model, name=name)

    @property
    def several(self) -> tuple[str, ...]:
        """The facets of which an image may show several labels, each decided by itself."""
        rules = {name: each.decision for name, each in self.items()}
        return tuple(name for name, rule in rules.items() if rule is not None and rule.several is not None)

    @property
    def model(self) -> str | None:
        """The name of the model that the facets belong to; None if unknown."""
        return next((each.model for each in self._classifiers.values() if each.model), None)

    def save(self, path: str | Path) -> None:
        """Write all facets into one file (by convention .nshot), as a whole or not at all.

        Raises:
            OutputError: it cannot be written there.
        """
        arrays = {
            f"{number}.{name}": getattr(classifier, name)
            for number, classifier in enumerate(self._classifiers.values())
            for name in file.ARRAYS
        }
        told: list[dict[str, Any]] = [{"facet": name, **each.told()} for name, each in self.items()]
        file.write(path, arrays, {"facets": told}, format=file.FACETS)

    @classmethod
    def open(cls, path: str | Path) -> Facets:
        """Read facets that ``save`` wrote; nothing in the file is run.

        Raises:
            RequestError: there is no such file, or it does not hold facets.
        """
        arrays, told = file.read(path, format=file.FACETS)
        with file.opening(path):
            found = {}
            for number, own in enumerate(told["facets"]):
                parts = {name: arrays[f"{number}.{name}"] for name in file.ARRAYS}
                if not isinstance(own["facet"], str):
                    raise TypeError("the name of a facet is no text")
                found[own["facet"]] = Classifier.of_told(parts, own)
            return cls(found)

    def calibrated(
        self,
        images: Mapping[str, Embeddings],
        *,
        none: Embeddings | None = None,
        background: Mapping[str, ArrayLike | None] | None = None,
        **usual: Any,
    ) -> Facets:
        """Each facet calibrated on its own images; see ``nshot.calibrate``.

        Args:
            images: by the facet's name, embeddings with its labels, which it has not learnt from.
            none: images that show no label of any facet.
            background: by the facet's name, float[b, d], what its background rule needs.
            **usual: what ``nshot.calibrate`` takes beside them, for all facets; what a facet asks for itself
                (``nshot.labels.facets.Facet.calibrate``) comes first.

        Raises:
            RequestError: a facet without images, or what ``nshot.calibrate`` raises; the facet is named.
        """
        made = {}
        for name, classifier in self.items():
            if name not in images:
                raise RequestError(f"facet {name!r}: there are no images to calibrate it on")
            own = {"reject": None} if classifier.made.get("none") == OFF else {}
            own |= classifier.made.get("calibrate") or {}
            rows = None if background is None else background.get(name)
            try:
                made[name] = calibrate(classifier, images[name], none=none, background=rows, **(usual | own))
            except RequestError as error:
                raise RequestError(f"facet {name!r}: {error}") from error
        return Facets(made)

    def __getitem__(self, name: str) -> Classifier:
        return self._classifiers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classifiers)

    def __len__(self) -> int:
        return len(self._classifiers)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}: {len(each.labels)} labels" for name, each in self.items())
        return f"<Facets: {told}>"


def _asked(embedder: TextEmbedder, facet: Facet, templates: tuple[str, ...]) -> Classifier:
    """One facet's zero-shot classifier, with the decision and whatever else it has of its own."""
    own: dict[str, Any] = {"calibrate": dict(facet.calibrate)} if facet.calibrate else {}
    none, background = facet.none, EVERYDAY if facet.none is None else facet.none.background or EVERYDAY
    if facet.multi:
        asked = several_zero_shot(embedder, facet.labels, templates, background=background)
        if none is not None and none.threshold is not None:
            asked = several_labels(asked, None, threshold=none.threshold)
        return asked.with_provenance(made=own)
    asked = zero_shot(embedder, facet.labels, templates)
    if facet.activation is not None:
        own["activation"] = facet.activation
        asked = asked.with_activation(facet.activation)
    if none is not None:
        own["none"] = none.rule
        if none.background:
            own["background"] = _as_json(none.background)
        if none.rule != OFF:
            words = zero_shot(embedder, background, templates) if none.rule == "background" else None
            asked = asked.with_decision(Decision(rejection=_rejection(asked, none, words)))
    return asked.with_provenance(made=own)


def _as_json(labels: Labels) -> Any:
    return {k: list(said) for k, said in labels.items()} if isinstance(labels, Mapping) else list(labels)


def _rejection(asked: Classifier, none: NoneRule, background: Classifier | None) -> Rejection:
    if background is None:
        assert none.threshold is not None  # a facet that names another rule names its threshold
        return Rejection(none.rule, none.threshold)  # type: ignore[arg-type]
    usual = default_rejection(asked.matrix, background.matrix)
    return usual if none.threshold is None else replace(usual, threshold=none.threshold)


def open_classifier(path: str | Path) -> Classifier | Facets | TreeClassifier:
    """What a .nshot file holds: one classifier, several facets, or a classifier with a tree.

    Raises:
        RequestError: there is no such file, or it is neither.
    """
    held = file.format_of(path)
    if held == file.TREE:
        return TreeClassifier.open(path)
    if held == file.CASCADE:
        return CascadeClassifier.open(path)
    return Facets.open(path) if held == file.FACETS else Classifier.open(path)

"""Several questions, each measured on its own labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nshot.classifier.facets import Facets
from nshot.classifier.zero_shot import TextEmbedder
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.evaluation.evaluation import Evaluation, evaluate, prompt_ways


def evaluate_facets(
    facets: Facets,
    images: Mapping[str, Embeddings],
    embedder: TextEmbedder | None = None,
    templates: Sequence[str] = (),
    *,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """All figures of each facet; see ``nshot.evaluate``.

    Args:
        facets: what is measured.
        images: by the facet's name, embeddings with its labels.
        embedder: the model, so that other ways to write each facet's labels are measured beside; None: not.
        templates: those ways, for facets that have none of their own.
        seed: of resampling and folds.

    Raises:
        LabelError: an image's label that its facet does not have; the facet is named.
        RequestError: a facet without images, or of another model; the facet is named.
    """
    found = {}
    for name, classifier in facets.items():
        try:
            if name not in images:
                raise RequestError("there are no images to measure it on")
            ways = None
            if embedder is not None:
                own = classifier.made.get("templates") or templates
                ways = prompt_ways(embedder, list(classifier.labels), list(own))
            found[name] = evaluate(classifier, images[name], ways, seed=seed)
        except (LabelError, RequestError) as error:
            raise type(error)(f"facet {name!r}: {error}") from error
    return found

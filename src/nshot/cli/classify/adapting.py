"""``nshot classify --adapt``: prompts improved by the images themselves, before they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from nshot.cli.options import progress, say
from nshot.errors import RequestError
from nshot.types import Embedded, Failure

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.images.sources import Source


_LEARNT = "--adapt changes the scores that a decision was learnt on: leave one of them out"


def adapted_to(
    asked: Classifier | Facets | TreeClassifier, embedded: Iterable[Embedded | Failure], *, quiet: bool
) -> tuple[Classifier | Facets | TreeClassifier, Iterator[Source | Embedded | Failure]]:
    """What is asked, adapted to all the images, and the images; whether it was is said on stderr.

    Each facet is adapted by itself, and of a tree its leaves.

    Raises:
        RequestError: a decision was learnt on the scores, which adapting would change; or labels that do
            not exclude each other. A facet is named.
    """
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier

    if isinstance(asked, Facets):
        made, images = _adapted(asked, embedded, quiet=quiet)
        return Facets(made), images
    if isinstance(asked, TreeClassifier):
        if asked.placing is not None:
            raise RequestError(_LEARNT)
        made, images = _adapted({"": asked.classifier}, embedded, quiet=quiet)
        return asked.with_leaves(made[""]), images
    made, images = _adapted({"": asked}, embedded, quiet=quiet)
    return made[""], images


def _adapted(
    asked: Mapping[str, Classifier], embedded: Iterable[Embedded | Failure], *, quiet: bool
) -> tuple[dict[str, Classifier], Iterator[Source | Embedded | Failure]]:
    """The classifiers adapted to all the images, and the images; whether they were is said on stderr.

    Args:
        asked: by the name of the facet; of one question, by no name.
        embedded: the images.
        quiet: say nothing.
    """
    import numpy as np

    from nshot.few_shot import adapt
    from nshot.few_shot.adapting import check_adaptable

    for name, classifier in asked.items():
        try:
            check_adaptable(classifier)
        except RequestError as error:
            raise RequestError(f"facet {name!r}: {error}" if name else str(error)) from error
        if classifier.decision is not None:
            raise RequestError(f"facet {name!r}: {_LEARNT}" if name else _LEARNT)
    items = list(progress(embedded, shown=not quiet))
    vectors = [item.vector for item in items if isinstance(item, Embedded)]
    if not vectors:
        return dict(asked), iter(items)
    made = {}
    for name, classifier in asked.items():
        adapted = adapt(np.stack(vectors), classifier)
        if not quiet:
            reason = adapted.reason if adapted.used else f"not adapted: {adapted.reason}"
            say(f"{name}: {reason}" if name else reason)
        made[name] = adapted.classifier
    return made, iter(items)

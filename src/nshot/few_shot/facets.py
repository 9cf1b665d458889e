"""Several questions, each learnt from its own labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nshot.classifier.facets import Facets
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.few_shot.candidates import Method
from nshot.few_shot.examples import fit

_KEPT = ("templates", "activation", "none", "background", "calibrate")  # what a facet has of its own


def fit_facets(
    images: Mapping[str, Embeddings],
    zero: Facets,
    *,
    method: Method | Literal["auto"] = "auto",
    strength: float | None = None,
    seed: int = 0,
) -> Facets:
    """A classifier of each facet from a few labelled images, or many; see ``nshot.fit``.

    A facet's own activation is kept, and so is what it asks of calibration. Its rule of "none of these" was a
    rule for prompts: ``Facets.calibrated`` learns another.

    Args:
        images: by the facet's name, embeddings with its labels.
        zero: the facets from their prompts.
        method: one method instead of the best by cross-validation, for facets of one label per image.
        strength: of that method.
        seed: of the cross-validation.

    Raises:
        LabelError: as ``nshot.fit``; the facet is named.
        RequestError: a facet without images, or as ``nshot.fit``; the facet is named.
    """
    made = {}
    for name, classifier in zero.items():
        if name not in images:
            raise RequestError(f"facet {name!r}: there are no images to learn it from")
        one: dict[str, Any] = {"method": method, "strength": strength}
        if name in zero.several:
            one = {"multi": True}
        try:
            fitted = fit(images[name], classifier, seed=seed, **one)
        except (LabelError, RequestError) as error:
            raise type(error)(f"facet {name!r}: {error}") from error
        if "activation" in classifier.made:
            fitted = fitted.with_activation(classifier.made["activation"])
        kept = {key: classifier.made[key] for key in _KEPT if key in classifier.made}
        made[name] = fitted.with_provenance(made=kept)
    return Facets(made)

"""A person's question to images: texts and pictures, with and against, asked through a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nshot.decision.background import EVERYDAY
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.search.fits import GENERIC
from nshot.search.index import Index
from nshot.search.searching import Hits, _sample, compose, search
from nshot.types import Failure, Floats

if TYPE_CHECKING:
    from nshot.embedder import Embedder


def look_for(
    embedder: Embedder,
    images: Any,
    text: str | Sequence[str] | None = None,
    *,
    like: Any = None,
    against: str | Sequence[str] = (),
    unlike: Any = None,
    n: int = 20,
    where: ArrayLike | None = None,
    diversity: float = 0.0,
    background: Sequence[str] = EVERYDAY,
) -> Hits:
    """The images nearest to a question of texts and images.

    Args:
        embedder: the model.
        images: ``Embeddings``, an ``Index``, or whatever ``embedder.embed`` takes.
        text: what to look for, in words; several are one question, their mean.
        like: images to look for the like of: whatever ``embedder.embed_images`` takes.
        against: texts to stay away from.
        unlike: images to stay away from.
        n: how many images to find.
        where: bool[images], those that may be found.
        diversity: 0 for the nearest; toward 1, hits that differ from each other.
        background: generic names that tell whether a hit is unusual.

    Returns:
        The hits; ``.fits`` says whether anything fits. The images of ``like`` are not among them.

    Raises:
        RequestError: nothing to look for, an image to look for that cannot be read, or vectors of another
            model.
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    away = [against] if isinstance(against, str) else list(against)
    check_texts([*texts, *away])
    if not isinstance(images, (Embeddings, Index)):
        images = embedder.embed(images)
    embedder.check_space(images.recipe, images.model, "these vectors")
    liked_names, liked = _shown(embedder, like)
    disliked_names, disliked = _shown(embedder, unlike)
    minus = [rows for rows in (embedder.embed_texts(away) if away else None, disliked) if rows is not None]
    query = compose(
        _said(texts, liked_names, [*away, *disliked_names]),
        texts=embedder.embed_texts(texts) if texts else None,
        like=liked,
        against=np.concatenate(minus) if minus else None,
        generic_texts=generic_texts(embedder, background) if texts else None,
        generic_images=_sample(images) if liked is not None else None,
    )
    return search(images, query, n, where=where, diversity=diversity, without=liked_names)


def check_texts(texts: Iterable[str]) -> None:
    """Refuse a question of nothing before any image is read.

    Raises:
        RequestError: an empty text.
    """
    if not all(text.strip() for text in texts):
        raise RequestError("an empty text has nothing to look for")


def generic_texts(embedder: Embedder, names: Iterable[str] = EVERYDAY) -> Floats:
    """What stands for any text: float32[m, d], the names in the barest template."""
    return embedder.embed_texts([GENERIC.format(name) for name in names])


def _shown(embedder: Embedder, images: Any) -> tuple[list[str], Floats | None]:
    """The names and vectors of images that a question holds."""
    if images is None or (isinstance(images, (list, tuple)) and not images):
        return [], None
    names, rows = [], []
    for item in embedder.embed_images(images):
        if isinstance(item, Failure):
            raise RequestError(f"cannot look for the like of {item.source}: {item.message}")
        names.append(item.source)
        rows.append(item.vector)
    if not rows:
        raise RequestError("no image to look for the like of")
    return names, np.stack(rows)


def _said(texts: Sequence[str], like: Sequence[str], away: Sequence[str]) -> str:
    """The question in words."""
    parts = [*texts, *(f"like {name}" for name in like[:3])]
    if len(like) > 3:
        parts.append(f"like {len(like) - 3} more")
    if away:
        parts.append(f"not {', '.join(away[:3])}")
    return ", ".join(parts)

"""What `nshot fit` and `nshot evaluate` say of images that are there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nshot.cli.options import say

if TYPE_CHECKING:
    from nshot.cli.data import DataOptions
    from nshot.cli.options import ModelOptions
    from nshot.embeddings import Embeddings
    from nshot.search import Copy


def tell_otherwise_labelled(images: Embeddings, where: str = "", *, quiet: bool) -> list[Copy]:
    """Count the pairs of images that are one image under two labels; all pairs that are one image.

    Args:
        images: labelled images.
        where: the end of the sentence: where the pairs are listed.
        quiet: say nothing.
    """
    from nshot.search import copies, differently_labelled

    found = copies(images)
    wrong = differently_labelled(images, found)
    if wrong and not quiet:
        assert images.labels is not None
        one, other = (
            f"{images.sources[row]} ({', '.join(images.labels[row]) or 'no label'})"
            for row in (wrong[0].row, wrong[0].other)
        )
        many = "1 pair of images is" if len(wrong) == 1 else f"{len(wrong):,} pairs of images are"
        say(f"{many} alike but labelled otherwise, such as {one} and {other}{where}")
    return found


def tell_shared(images: Embeddings, others: Embeddings, name: str, so: str) -> list[Copy]:
    """Warn of images that are in another set too, by bytes or by vectors; the pairs.

    Args:
        images: the set.
        others: what should share no image with it.
        name: what the other set is called.
        so: what follows.
    """
    from nshot.search import copies

    found = copies(images, others)
    rows = {pair.row for pair in found}
    if rows:
        many = f"{len(rows):,} of the {len(images):,} images are"
        if len(rows) == 1:
            many = f"1 of the {len(images):,} images is"
        say(f"WARNING: {many} in {name} too, such as {images.sources[min(rows)]}: {so}")
    return found


def in_test_part(examples: Embeddings, data_options: DataOptions, model_options: ModelOptions) -> list[str]:
    """Examples of a folder's training part that lie in its test part as well, byte for byte.

    The test part is read, and not embedded: that would cost as much as learning.
    """
    from hashlib import sha256
    from pathlib import Path

    from nshot.errors import NshotError
    from nshot.images.sources import Source

    if data_options.split is not None or not Path(data_options.data).is_dir():
        return []
    try:
        other = data_options.open(model_options, prefer=("test", "val", "train"), quiet=True)
    except NshotError:
        return []
    known = set(examples.sources)
    listed = [item for item in other if isinstance(item, Source)]
    if not listed or any(item.name in known for item in listed):
        return []  # there is one part alone
    digests: dict[bytes, str] = {}
    for name, digest in zip(examples.sources, examples.digests or (), strict=False):
        if digest is not None:
            digests.setdefault(digest, name)
    found = []
    for item in listed:
        try:
            digest = sha256(item.read()).digest()
        except NshotError:
            continue
        if digest in digests:
            found.append(digests[digest])
    return list(dict.fromkeys(found))

"""What kind of question is asked: one label per image, several, facets, or a place in a tree."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from nshot.errors import RequestError


class Kind(Enum):
    """How many answers an image has, and of what."""

    ONE = "one label per image"
    SEVERAL = "several labels per image"
    FACETS = "several questions"
    TREE = "a tree of labels"


def kind_of(
    *,
    tree_file: Path | None = None,
    facets_given: str | None = None,
    classifier_file: Path | None = None,
    multi: bool = False,
) -> Kind:
    """By what was named, else by what the classifier file holds.

    Args:
        tree_file: of --tree.
        facets_given: of --facets.
        classifier_file: of --classifier; one that is not there says nothing yet.
        multi: of --multi. With facets it belongs to each of them.

    Raises:
        RequestError: two of these exclude each other.
    """
    if tree_file is not None and facets_given is not None:
        raise RequestError("give --tree or --facets, not both")
    for given, name in ((tree_file, "--tree"), (facets_given, "--facets")):
        if given is not None and classifier_file is not None:
            raise RequestError(f"give {name} or --classifier, not both")
    kind = (
        Kind.TREE
        if tree_file is not None
        else Kind.FACETS
        if facets_given is not None
        else _held(classifier_file)
    )
    if kind is Kind.TREE and multi:
        raise RequestError("a tree answers with one node per image: leave out --multi")
    return Kind.SEVERAL if kind is Kind.ONE and multi else kind


def check_rank(rank: str | None, kind: Kind) -> None:
    """Refuse --rank for what is no tree.

    Raises:
        RequestError: it was given, and there is no tree.
    """
    if rank is not None and kind is not Kind.TREE:
        raise RequestError("--rank is a level of a tree: give --tree as well")


def _held(classifier_file: Path | None) -> Kind:
    if classifier_file is None or not classifier_file.is_file():
        return Kind.ONE
    from nshot.classifier import file
    from nshot.classifier.classifier import Classifier

    held = file.format_of(classifier_file)
    if held in (file.TREE, file.FACETS):
        return Kind.TREE if held == file.TREE else Kind.FACETS
    if held == file.FORMAT and Classifier.open(classifier_file).several is not None:
        return Kind.SEVERAL
    return Kind.ONE

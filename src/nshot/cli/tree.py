"""A tree of labels on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.errors import RequestError
from nshot.labels.tree import read_tree

if TYPE_CHECKING:
    from nshot.classifier.tree import TreeClassifier
    from nshot.model import Model

tree_option = click.option(
    "--tree",
    "tree_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Labels in a tree: nested JSON, paths such as animal/dog/beagle, one per line, or WordNet's ids. "
    "The answer is the deepest node that the evidence allows.",
)


def is_tree(tree_file: Path | None, classifier_file: Path | None) -> bool:
    """Whether a tree is asked: named, or in a classifier file."""
    if tree_file is not None:
        return True
    if classifier_file is None or not classifier_file.is_file():
        return False
    from nshot.classifier import file

    return file.format_of(classifier_file) == file.TREE


def ask_tree(
    tree_file: Path | None,
    classifier_file: Path | None,
    label_options: LabelOptions,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, TreeClassifier]:
    """The model, and the classifier with its tree: a saved one, or zero-shot over the leaves.

    Raises:
        RequestError: a tree and labels or a classifier together, or a rule of "none of these".
    """
    from nshot.classifier.tree import TreeClassifier
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    if label_options.any:
        raise RequestError("a tree brings its own labels: leave out --labels")
    if decision_options.reject not in (None, "off") or decision_options.threshold is not None:
        raise RequestError("a tree answers with a higher node where it is unsure: leave out --reject")
    if decision_options.multi:
        raise RequestError("a tree answers with one label per image: leave out --multi")
    coverage = decision_options.coverage
    if classifier_file is not None:
        if tree_file is not None:
            raise RequestError("give --tree or --classifier, not both")
        asked = TreeClassifier.open(classifier_file)
        if model_options.model is None:
            model_options = replace(model_options, model=asked.classifier.model)
        model = model_options.load(quiet=quiet)
        asked.classifier.check_space(model.recipe, model.name, name=str(classifier_file))
        if coverage is not None and asked.placing is not None:
            return model, asked.with_coverage(coverage)
    else:
        assert tree_file is not None
        tree = read_tree(tree_file)
        templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
        model = model_options.load(quiet=quiet)
        asked = TreeClassifier.zero_shot(model, tree, templates)
    if asked.placing is None:
        if coverage is not None:
            raise RequestError("a coverage is learnt from labelled images: nshot calibrate DATA --tree FILE")
        if not quiet:
            say(
                "the tree is not calibrated, so how often its answers are right is not known: nshot "
                "calibrate DATA --tree FILE -o tree.nshot --coverage 0.9"
            )
    return model, asked

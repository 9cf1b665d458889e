"""A tree of labels on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.cli.refusing import leave_out
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


rank_option = click.option(
    "--rank",
    metavar="LEVEL",
    help="With a tree: answer at this level always, by its number from 1, the roots, or its name (a table "
    "with the columns family, genus, species names them).",
)


def ask_tree(
    tree_file: Path | None,
    classifier_file: Path | None,
    label_options: LabelOptions,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    *,
    rank: str | None = None,
    quiet: bool,
) -> tuple[Model, TreeClassifier]:
    """The model, and the classifier with its tree: a saved one, or zero-shot over the leaves.

    Raises:
        RequestError: a tree and labels together, a rule of "none of these", or a coverage and a rank
            together.
        LabelError: a rank that the tree does not have.
    """
    from nshot.classifier.tree import TreeClassifier
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    if label_options.any:
        raise RequestError("a tree brings its own labels: leave out --labels")
    leave_out("a tree answers with a higher node where it is unsure", **decision_options.rules)
    coverage = decision_options.coverage
    if coverage is not None and rank is not None:
        raise RequestError("a coverage decides how deep answers go: give --coverage or --rank, not both")
    if classifier_file is not None:
        leave_out(
            "a saved tree brings its own prompts",
            template=label_options.template,
            templates=label_options.templates,
        )
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
    if rank is not None:
        return model, asked.with_rank(asked.tree.rank(rank))
    if asked.placing is None:
        if coverage is not None:
            raise RequestError("a coverage is learnt from labelled images: nshot calibrate DATA --tree FILE")
        if not quiet:
            say(
                "the tree is not calibrated, so how often its answers are right is not known: nshot "
                "calibrate DATA --tree FILE -o tree.nshot --coverage 0.9"
            )
    return model, asked

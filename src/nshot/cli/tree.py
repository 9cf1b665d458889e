"""A tree of labels on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.errors import RequestError
from nshot.labels.tree import read_tree

if TYPE_CHECKING:
    from nshot.classifier.tree import TreeClassifier
    from nshot.cli.data import DataOptions
    from nshot.embeddings import Embeddings
    from nshot.few_shot import Fitted
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
    rank: str | None = None,
    quiet: bool,
) -> tuple[Model, TreeClassifier]:
    """The model, and the classifier with its tree: a saved one, or zero-shot over the leaves.

    Raises:
        RequestError: a tree and labels or a classifier together, a rule of "none of these", or a coverage and
            a rank together.
        LabelError: a rank that the tree does not have.
    """
    from nshot.classifier.tree import TreeClassifier
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    if label_options.any:
        raise RequestError("a tree brings its own labels: leave out --labels")
    if decision_options.reject not in (None, "off") or decision_options.threshold is not None:
        raise RequestError("a tree answers with a higher node where it is unsure: leave out --reject")
    if decision_options.multi:
        raise RequestError("a tree answers with one label per image: leave out --multi")
    if decision_options.multi:
        raise RequestError("a tree answers with one node per image: leave out --multi")
    coverage = decision_options.coverage
    if coverage is not None and rank is not None:
        raise RequestError("a coverage decides how deep answers go: give --coverage or --rank, not both")
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


def fit_tree(
    tree_file: Path,
    data_options: DataOptions,
    label_options: LabelOptions,
    model_options: ModelOptions,
    output: Path,
    *,
    method: Any,
    strength: float | None,
    seed: int,
    quiet: bool,
) -> tuple[Fitted, int]:
    """Fit the leaves of a tree on labelled images and save them with it; what was found, and the status."""
    from nshot.cli.data import embed, tell_failures
    from nshot.few_shot.examples import fit

    labelled = data_options.open(model_options, None, prefer=("train", "val", "test"), quiet=quiet)
    of_model = data_options.of_model(model_options)
    nothing = DecisionOptions(None, None, None, None, None)
    model, asked = ask_tree(tree_file, None, label_options, nothing, of_model, quiet=True)
    images = embed(model, labelled, quiet=quiet)
    leaves = set(asked.tree.leaves)
    names = [asked.tree.find(own[0]) if len(own) == 1 else None for own in images.labels or ()]
    kept = [row for row, name in enumerate(names) if name in leaves]
    if not kept:
        raise RequestError(
            f"no image has a label that is a leaf of the tree, such as {asked.tree.leaves[0]!r}"
        )
    if len(kept) < len(images) and not quiet:
        say(
            f"{len(images) - len(kept)} images were left out: they have several labels or none, or theirs is "
            "no leaf of the tree"
        )
    examples = images[kept].with_labels([str(names[row]) for row in kept])
    fitted = fit(examples, asked.classifier, method=method, strength=strength, seed=seed)
    asked.with_leaves(fitted).save(output)
    return fitted.report, tell_failures(list(images.failures.values()), len(images), quiet=quiet)


def evaluate_with_tree(
    asked: TreeClassifier, images: Embeddings, folder: Path | None, run: Mapping[str, object], *, quiet: bool
) -> None:
    """Measure a tree, say the headline, and write the report into the folder."""
    from nshot.classifier.calibrating import seen_before
    from nshot.cli.data import told_seen
    from nshot.evaluation import files, placed_page
    from nshot.evaluation.placed import evaluate_tree

    if learnt := seen_before(asked.classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: evaluate on images that it has not seen")
    found = evaluate_tree(asked, images)
    if found.left_out and not quiet:
        say(f"{found.left_out} images without exactly one label of the tree were left out")
    f, (low, high) = found.figures, found.interval
    click.echo(f"{len(found.images):,} images, a tree of {len(asked.tree.leaves):,} leaves\n")
    for name, told in (
        (
            "contain the truth",
            f"{_share(f['covered'])}   95 % interval {100 * low:.1f} to {100 * high:.1f} %",
        ),
        ("mean depth", f"{f['depth']:7.2f}   of {asked.tree.depth}"),
        ("own label itself", _share(f["exact"])),
        ("mean distance", f"{f['distance']:7.2f}   edges from the answer to the own label"),
        ("best leaf", f"{_share(f['leaf_right'])}   mean distance {f['leaf_distance']:.2f}"),
    ):
        click.echo(f"{name:18} {told}")
    click.echo("\ndepth   images   right at it   answers   of these right")
    for level in found.levels:
        of_those = "" if not level.answers else f"{_share(level.right_of_answers):>17}"
        right = _share(level.right) if level.images else ""
        click.echo(f"{level.depth:5} {level.images:8,} {right:>13} {level.answers:9,}{of_those}".rstrip())
    if folder is not None:
        table = "predictions.parquet" if find_spec("pyarrow") else "predictions.csv"
        files.write_placed(folder / table, found)
        told_run = {name: value for name, value in run.items() if value is not None}
        files.write_json(folder / "report.json", found.to_dict() | {"run": told_run})
        files.write_page(folder / "index.html", placed_page.write(found, told_run))
        click.echo(f"\n{folder / 'index.html'}")


def _share(value: float) -> str:
    return f"{100 * value:5.1f} %"

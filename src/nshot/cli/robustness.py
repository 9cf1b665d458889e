"""`nshot robustness`: and on other images?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from nshot.cli.examples import ExampleOptions, Examples, example_options, read_examples
from nshot.cli.options import (
    LabelOptions,
    ModelOptions,
    label_options,
    model_options,
    progress,
    say,
    talk_options,
)
from nshot.errors import ImageError, RequestError
from nshot.types import Failure

if TYPE_CHECKING:
    from PIL.Image import Image

    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder
    from nshot.evaluation.robustness import Answers, Condition
    from nshot.evaluation.supervised import Supervised
    from nshot.few_shot.heads import Head
    from nshot.images.sources import Source

ZERO_SHOT = "CLIP, zero-shot"
FEW_SHOT = "CLIP, few-shot"


@click.command("robustness", short_help="Measure on images of another kind, and on images made worse.")
@example_options
@click.option(
    "--other",
    "others",
    multiple=True,
    metavar="DATA",
    help="Images of another kind with the same labels, or some of them; repeatable.",
)
@click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The few-shot column.  [default: fitted on half of DATA]",
)
@click.option(
    "--supervised",
    metavar="MODEL",
    help="A supervised model as a further column, such as microsoft/resnet-50: a probe on its features, "
    "trained on half of DATA. Needs nshot[torch].",
)
@click.option(
    "--corruptions",
    default="all",
    show_default=True,
    metavar="all|none|NAME,...",
    help="Of noise, blur, contrast, brightness, jpeg, pixelation, rotation, occlusion.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Images to make worse, at most: each is encoded five times a corruption.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Where the report goes.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the halves and the corruptions.")
@label_options
@model_options
@talk_options
def command(
    example_options: ExampleOptions,
    others: tuple[str, ...],
    classifier_file: Path | None,
    supervised: str | None,
    corruptions: str,
    images: int,
    output: Path,
    seed: int,
    label_options: LabelOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure classifiers on images of another kind, and on images made worse.

    Columns are CLIP zero-shot, CLIP few-shot, and with --supervised a probe on a supervised model. Half of
    DATA is what the latter two learn from; the other half is the base that all are measured on. Other sets
    are measured on the labels that they share with it. The report is a page (index.html) and every number
    (robustness.json).

    \b
    nshot robustness photos/ --other sketches/ --other paintings/ -o report/

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import writing
    from nshot.evaluation import files as evaluation_files
    from nshot.evaluation import robustness_page

    families = _families(corruptions)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    examples = read_examples(example_options, label_options, model_options, quiet=quiet)
    columns = _columns(examples, classifier_file, supervised, seed)
    measured = columns.measured.tolist()
    base = columns.answers(
        [example.source for example in examples.at(measured)], [examples.labels[i] for i in measured], quiet
    )
    reference = list(base.answers.logits)[-1]
    conditions, failures = _conditions(
        examples, columns, base.answers, others, families, images, example_options, seed, quiet
    )
    run = {
        "data": example_options.data,
        "other sets": ", ".join(others) or "none",
        "model": examples.embedder.name,
        "recipe": examples.embedder.recipe.digest,
        "few-shot": columns.few_shot,
        "supervised": supervised or "none",
        "reference of effective robustness": reference,
        "seed": seed,
    }
    content = {"run": run, "conditions": [c.to_dict(reference) for c in conditions]}
    evaluation_files.write_json(output / "robustness.json", content)
    evaluation_files.write_page(
        output / "index.html", robustness_page.write(conditions, run, reference=reference)
    )
    click.echo(_told(conditions))
    click.echo(f"\n{output / 'index.html'}")
    failures += base.failures
    for failure in () if quiet else failures:
        click.echo(f"failed: {failure.source}: {failure.message}", err=True)
    status = examples.tell_failures(quiet=quiet)
    return 1 if failures else status


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    answers: Answers
    failures: list[Failure]


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The classifiers, over the same labels."""

    embedder: Embedder
    labels: tuple[str, ...]
    clip: dict[str, Classifier]
    few_shot: str
    network: Supervised | None
    probe: Head | None
    measured: NDArray[np.intp]

    def answers(self, sources: Sequence[Source | Image], labels: Sequence[str], quiet: bool) -> _Answered:
        """Every classifier's logits for these images."""
        from nshot.evaluation.robustness import Answers
        from nshot.images.decode import decode
        from nshot.unit import normalize

        vectors, kept, failures = [], [], []
        for number, item in enumerate(progress(self.embedder.embed_images(list(sources)), shown=not quiet)):
            if isinstance(item, Failure):
                failures.append(item)
            else:
                vectors.append(item.vector)
                kept.append(number)
        if not vectors:
            raise RequestError("none of the images could be read")
        logits: dict[str, NDArray[Any]] = {
            name: classifier.logits(np.stack(vectors)) for name, classifier in self.clip.items()
        }
        if self.network is not None and self.probe is not None:
            limits = self.embedder.limits
            shown = (
                decode(item.read(), limits=limits) if hasattr(item, "read") else item
                for item in (sources[i] for i in kept)
            )
            features = normalize(self.network.features(shown)).astype(np.float64)
            logits[f"{self.network.name}, probe"] = self.probe.logits(features)
        place = {label: i for i, label in enumerate(self.labels)}
        return _Answered(Answers(logits, np.array([place[labels[i]] for i in kept], dtype=np.intp)), failures)


def _columns(examples: Examples, classifier_file: Path | None, supervised: str | None, seed: int) -> _Columns:
    """Fit on one half, and say which half is left to measure on."""
    from nshot.classifier import file as files
    from nshot.few_shot import fit
    from nshot.few_shot.choose import choose_probe, fold_numbers
    from nshot.few_shot.logistic import plain_probe
    from nshot.unit import normalize

    labels = examples.prompts.labels
    if missing := sorted(set(examples.labels) - set(labels)):
        raise RequestError(f"no prompt for {', '.join(missing)}: zero-shot needs one of every label")
    place = {label: i for i, label in enumerate(labels)}
    targets = np.array([place[label] for label in examples.labels], dtype=np.intp)
    second = fold_numbers(targets, 2, np.random.default_rng(seed)) == 1
    shown, measured = np.flatnonzero(second), np.flatnonzero(~second)
    if not len(shown):
        raise RequestError("two images at least are needed: one to learn from, one to measure on")
    if classifier_file is not None:
        saved = files.load(classifier_file)
        saved.check_model(examples.embedder.space, examples.embedder.name, name=str(classifier_file))
        if set(saved.classifier.labels) != set(labels):
            raise RequestError(f"{classifier_file} has other labels than the data: name them with --labels")
        few_shot, told = _ordered(saved.classifier, labels), str(classifier_file)
    else:
        fitted = fit(
            examples.vectors[shown], [examples.labels[i] for i in shown], examples.prompts, seed=seed
        )
        few_shot, told = fitted.classifier, f"{fitted.candidate}, fitted on {len(shown)} images"
    network = probe = None
    if supervised is not None:
        from nshot.evaluation.supervised import Supervised
        from nshot.images.decode import decode

        network = Supervised(supervised)
        limits = examples.embedder.limits
        seen = network.features(decode(e.source.read(), limits=limits) for e in examples.at(shown.tolist()))
        rows = normalize(seen).astype(np.float64)
        strength = choose_probe(rows, targets[shown], len(labels), seed=seed)
        [probe] = plain_probe(rows, targets[shown], len(labels), strengths=[strength])
    clip = {ZERO_SHOT: examples.prompts, FEW_SHOT: few_shot}
    return _Columns(examples.embedder, labels, clip, told, network, probe, measured)


def _ordered(classifier: Classifier, labels: Sequence[str]) -> Classifier:
    """The same classifier with its rows in another order."""
    from nshot.classifier.classifier import Classifier

    rows = [classifier.labels.index(label) for label in labels]
    return Classifier(
        labels,
        classifier.matrix[rows],
        scale=classifier.scale[rows],
        bias=classifier.bias[rows],
        activation=classifier.activation,
        space=classifier.space,
    )


def _conditions(
    examples: Examples,
    columns: _Columns,
    base: Answers,
    others: Sequence[str],
    families: Sequence[str],
    images: int,
    options: ExampleOptions,
    seed: int,
    quiet: bool,
) -> tuple[list[Condition], list[Failure]]:
    """The base, the other sets, the corruptions."""
    from nshot.datasets.labelled import Columns, open_labelled
    from nshot.evaluation.corruptions import STRENGTHS, corrupt
    from nshot.evaluation.robustness import condition, match
    from nshot.images.decode import decode

    labels, limits = columns.labels, examples.embedder.limits
    sets = [options.data, *others]
    short = [Path(each).name for each in sets]
    names_of = dict(zip(sets, short if len(set(short)) == len(sets) else sets, strict=True))
    conditions = [condition(names_of[options.data], "base", labels, base, base)]
    failures: list[Failure] = []
    for other in others:
        found = [
            e
            for e in open_labelled(other, columns=Columns(options.image_column, options.label_column))
            if len(e.labels or ()) == 1
        ]
        names = match(labels, sorted({(e.labels or ("",))[0] for e in found}))
        kept = [e for e in found if (e.labels or ("",))[0] in names]
        if not kept:
            raise RequestError(f"{other} holds none of the labels, such as {labels[0]!r}")
        if len(kept) < len(found) and not quiet:
            say(f"{other}: {len(found) - len(kept)} images of other labels left out")
        answered = columns.answers(
            [e.source for e in kept], [labels[names[(e.labels or ("",))[0]]] for e in kept], quiet
        )
        failures += answered.failures
        conditions.append(condition(names_of[other], "domain", labels, base, answered.answers))
    if not families:
        return conditions, failures
    # a fair share of every label, in an order that the seed fixes
    order = np.random.default_rng(seed).permutation(columns.measured)[:images].tolist()
    originals: list[tuple[int, Image]] = []
    for row, example in zip(sorted(order), examples.at(sorted(order)), strict=True):
        try:
            originals.append((row, decode(example.source.read(), limits=limits)))
        except ImageError:
            continue  # it has failed in the base already
    of = [examples.labels[row] for row, _ in originals]
    plain = columns.answers([image for _, image in originals], of, quiet).answers
    for family in families:
        for strength in STRENGTHS:
            worse = [corrupt(image, family, strength, seed=seed + row) for row, image in originals]
            answered = columns.answers(worse, of, quiet)
            conditions.append(
                condition(family, "corruption", labels, plain, answered.answers, strength=strength)
            )
    return conditions, failures


def _families(text: str) -> list[str]:
    from nshot.evaluation.corruptions import FAMILIES

    if text in ("all", "none"):
        return list(FAMILIES) if text == "all" else []
    wanted = [part.strip() for part in text.split(",")]
    if strange := [name for name in wanted if name not in FAMILIES]:
        raise RequestError(f"--corruptions are all, none, or of {', '.join(FAMILIES)}; not {strange[0]!r}")
    return wanted


def _told(conditions: Sequence[Condition]) -> str:
    """A row a condition, a column a classifier; corruptions in the mean over their strengths."""
    names = list(conditions[0].tallies)
    width = max(len(c.name) for c in conditions) + 2
    lines = [" " * width + "".join(f"{name:>{max(len(name), 8) + 3}}" for name in names)]
    for name in dict.fromkeys(c.name for c in conditions):
        group = [c for c in conditions if c.name == name]
        means = [100 * sum(c.tallies[n].accuracy for c in group) / len(group) for n in names]
        cells = [f"{mean:{max(len(n), 8) + 1}.1f} %" for mean, n in zip(means, names, strict=True)]
        lines.append(f"{name:{width}}" + "".join(cells))
    return "\n".join(lines)
